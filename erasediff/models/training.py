"""Training a base model from scratch, or continuing to train one: the ordinary denoising objective with label dropout (Ho et al. 2020, eq. 14)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erasediff.errors import NonFinite
from erasediff.models.denoiser import Denoiser
from erasediff.models.families.unet import ClassConditionalUNet, build_unet
from erasediff.models.family import Model
from erasediff.models.noised import NoisedBatch, denoising_loss
from erasediff.models.optimisation import ExponentialMovingAverage, gradient_of, linear_decay, side_by_side
from erasediff.models.process import NoiseSchedule, build_scheduler, squared_cosine
from erasediff.records.config import RunConfig

_WARMUP_STEPS = 50
_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class TrainingSet:
    """States ``float32 [N,C,H,W]`` with labels ``int64 [N]``, and the null row, if there is one, that ``dropout`` of a batch is shown under."""

    states: Tensor
    labels: Tensor
    null_row: int | None
    dropout: float

    def draw(self, schedule: NoiseSchedule, batch_size: int, generator: torch.Generator, device: torch.device) -> NoisedBatch:
        """A batch drawn by ``generator``."""
        picked = torch.randint(0, len(self.states), (batch_size,), generator=generator)
        clean = self.states[picked].to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        timesteps = schedule.draw_timesteps(len(picked), generator).to(device)
        dropped = torch.rand(len(picked), generator=generator) < self.dropout
        own = self.labels[picked]
        labels = (own if self.null_row is None else torch.where(dropped, self.null_row, own)).to(device)
        return NoisedBatch.of(schedule, clean, noise, timesteps, labels)


def descend(denoiser: Denoiser, batch: NoisedBatch, weights: Sequence[torch.nn.Parameter]) -> float:
    """Put the gradient of the denoising loss into the weights' ``.grad`` and return the loss; on a CPU each half of the batch has a thread."""
    count = len(batch.noised)

    def gradient(part: NoisedBatch) -> tuple[float, list[Tensor]]:
        loss = denoising_loss(denoiser, part) * (len(part.noised) / count)
        return loss.item(), gradient_of(loss, weights)

    half = count // 2
    if batch.noised.device.type != "cpu" or not half:
        loss, tensors = gradient(batch)
    else:
        first, second = batch.only(slice(half)), batch.only(slice(half, None))
        (loss, tensors), (rest, others) = side_by_side(lambda: gradient(first), lambda: gradient(second))
        torch._foreach_add_(tensors, others)
        loss += rest
    for weight, tensor in zip(weights, tensors, strict=True):
        weight.grad = tensor
    return loss


def _rate(step: int, steps: int, decay_fraction: float) -> float:
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warmup * linear_decay(step, steps, decay_fraction)


def new_base(config: RunConfig, channels: int, size: int, classes: int) -> Model:
    """The model that a configuration describes, untrained: a function of its seed.

    Args:
        config: the run's configuration.
        channels: of an image.
        size: side of an image in pixels.
        classes: how many classes there are; the row after theirs is the null row.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = build_unet(config.denoiser, channels, size, classes)
    schedule = squared_cosine(config.denoiser.train_timesteps, config.denoiser.prediction)
    return ClassConditionalUNet.of(unet, build_scheduler(config.sampler, schedule))


def train_base(model: Model, states: Tensor, labels: Tensor, config: RunConfig, device: torch.device, done: Callable[[int, float], None]) -> Model:
    """Train a model that is fresh.

    Args:
        model: its network is trained in place.
        states: ``float32 [N,C,H,W]``.
        labels: ``int64 [N]``.
        config: the run's configuration with a ``base_training`` section.
        device: where to train.
        done: called with the number of steps done and the loss.

    Returns:
        The model with averaged weights, in evaluation mode on the CPU.

    Raises:
        NonFinite: the loss is NaN or infinite.
    """
    training = config.base_training
    assert training is not None, "the caller checks that the config trains a base"
    network, schedule = model.network.to(device).train(), model.schedule
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, betas=_BETAS, fused=True)
    data = TrainingSet(states, labels, model.null_row, training.label_dropout)
    average, weights = ExponentialMovingAverage(network, training.ema_decay), list(network.parameters())
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _rate(step, training.steps, training.decay_fraction)
        loss = descend(model.denoiser, data.draw(schedule, training.batch_size, generator, device), weights)
        if not math.isfinite(loss):
            raise NonFinite(f"the base's loss is not finite at step {step}: lower base_training.learning_rate and run again.")
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        average.update(weights)
        done(step + 1, loss)
    return model.with_network(average.model.cpu())


def train_on(model: Model, data: TrainingSet, batch_size: int, learning_rate: float, seed: int) -> Iterator[int]:
    """Continue training a model in place, without end; yields the number of steps done after each.

    Args:
        model: its network is in training mode while a step runs, and in evaluation mode whenever this yields.
        data: what it is trained on.
        batch_size: states a step.
        learning_rate: of Adam, constant.
        seed: of the batches and their noise.
    """
    network, schedule = model.network, model.schedule
    device, generator = next(network.parameters()).device, torch.Generator().manual_seed(seed)
    weights = list(network.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(weights, lr=learning_rate, betas=_BETAS, fused=True)
    step = 0
    while True:
        network.train()
        descend(model.denoiser, data.draw(schedule, batch_size, generator, device), weights)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        network.eval()
        yield step
