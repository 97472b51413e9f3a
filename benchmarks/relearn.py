"""S50: how many steps of fine-tuning on ten forgotten images bring the class back to half of the base's detection rate."""

from __future__ import annotations

import copy

import torch

from benchmarks.judge import Judge
from erasediff.models.denoiser import UNetDenoiser
from erasediff.models.noised import NoisedBatch, denoising_loss
from erasediff.unlearn.randomness import Randomness

IMAGES = 10
REPEATS = 4  # each image four times a step, with noise of its own
LEARNING_RATE = 5e-4
LOOKS = (2, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 128, 181, 256)
SAMPLES = 200


def steps_to_half(unet: torch.nn.Module, judge: Judge) -> int | None:
    """S50, to the next step in :data:`LOOKS`; ``None`` if the last of them is not enough.

    The attacker has ten training images of the class and nothing else, and trains all weights with Adam.
    """
    model = copy.deepcopy(unet).train().requires_grad_(True)
    random, schedule = Randomness(judge.seed + 1000), judge.ready.base.schedule
    images = judge.ready.data_without(judge.label).forget
    few = images[random.integers(len(images), IMAGES)].repeat(REPEATS, 1, 1, 1)
    labels = torch.full((len(few),), judge.label)
    wanted = 0.5 * judge.base_rate
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    for step in range(1, LOOKS[-1] + 1):
        timesteps, noise = random.timesteps(schedule, len(few)), random.normal(*few.shape)
        noised = schedule.add_noise(few, noise, timesteps)
        batch = NoisedBatch(few, noised, schedule.goal(few, noise, timesteps), timesteps, labels)
        torch.autograd.backward(denoising_loss(UNetDenoiser(model), batch))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step in LOOKS and judge.glance(model.eval(), SAMPLES) >= wanted:
            return step
        model.train()
    return None
