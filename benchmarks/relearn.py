"""S50: how many steps of fine-tuning on ten forgotten images bring the class back to half of the base's detection rate."""

from __future__ import annotations

import torch

from benchmarks.judge import Judge
from erasediff.evaluate.attacks.training import relearned
from erasediff.models.family import Model

IMAGES = 10
LEARNING_RATE = 5e-4
LOOKS = (2, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 128, 181, 256)
SAMPLES = 200


def steps_to_half(unet: torch.nn.Module, judge: Judge) -> int | None:
    """S50, to the next step in :data:`LOOKS`; ``None`` if the last of them is not enough.

    It is F6's attack with training images of the class: the attacker has ten of them and nothing else.
    """
    seed, images = judge.seed + 1000, judge.ready.real.train[judge.ready.real.train_labels == judge.label]
    picked = torch.randint(len(images), (IMAGES,), generator=torch.Generator().manual_seed(seed))

    def share(model: Model) -> float:
        return judge.glance(model.network, SAMPLES)

    return relearned(judge.suspect(unet), images[picked], LEARNING_RATE, LOOKS, share, judge.base_rate, seed).steps_to_half
