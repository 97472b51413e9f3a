"""Noised images under a condition, and the denoising loss of them (Ho et al. 2020, eq. 14)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor
from torch.nn.functional import mse_loss

from erasediff.models.denoiser import Denoiser
from erasediff.models.process import NoiseSchedule


@dataclass(frozen=True)
class NoisedBatch:
    """Noised images under a condition: ``clean``, ``noised``, ``goal [B,C,H,W]``, ``timesteps``, ``labels [B]``."""

    clean: Tensor
    noised: Tensor
    goal: Tensor
    timesteps: Tensor
    labels: Tensor

    @classmethod
    def of(cls, schedule: NoiseSchedule, clean: Tensor, noise: Tensor, timesteps: Tensor, labels: Tensor) -> NoisedBatch:
        """Images on the forward process, with what the model predicts of ``noise`` (ε or v) as the goal."""
        return cls(clean, schedule.add_noise(clean, noise, timesteps), schedule.goal(clean, noise, timesteps), timesteps, labels)

    def only(self, rows: Tensor | slice) -> NoisedBatch:
        """Some of the rows: ``int64 [R]``, or a slice."""
        return NoisedBatch(*(getattr(self, field.name)[rows] for field in fields(self)))

    def under(self, labels: Tensor) -> NoisedBatch:
        """The same states under another condition."""
        return replace(self, labels=labels)

    def aimed_at(self, target: Tensor) -> NoisedBatch:
        """The same states with ``target [B,C,H,W]`` as what is to be predicted."""
        return replace(self, goal=target)


def denoising_loss(denoiser: Denoiser, batch: NoisedBatch) -> Tensor:
    """Mean square of what is predicted against the batch's goal: a scalar."""
    return mse_loss(denoiser(batch.noised, batch.timesteps, batch.labels).float(), batch.goal)
