"""A class-conditional diffusion model as a diffusers pipeline: ``ClassConditionalPipeline`` (UNet and scheduler)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from erasediff.models.denoiser import Denoiser, UNetDenoiser
from erasediff.models.process import NoiseSchedule, build_scheduler, deterministic, schedule_of
from erasediff.records.config import SamplerConfig


class ClassConditionalPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A ``UNet2DModel`` with a null label and the scheduler that samples from it.

    The folder is in plain diffusers layout: ``unet/`` and ``scheduler/`` load in diffusers without this package.
    """

    def __init__(self, unet: torch.nn.Module, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @property
    def denoiser(self) -> Denoiser:
        """ε_θ, see :class:`erasediff.models.denoiser.Denoiser`."""
        return UNetDenoiser(self.unet)

    @property
    def schedule(self) -> NoiseSchedule:
        """The forward process the model was trained with."""
        return schedule_of(self.scheduler)

    def sampled_by(self, sampler: SamplerConfig) -> ClassConditionalPipeline:
        """The same model with the scheduler that a run measures, saves and serves it with."""
        return ClassConditionalPipeline(self.unet, build_scheduler(sampler, self.schedule))

    @property
    def classes(self) -> int:
        """The number of classes; it is also the index of the null label."""
        return int(self.unet.config.num_class_embeds) - 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of one image."""
        size = self.unet.config.sample_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return int(self.unet.config.in_channels), int(height), int(width)

    @torch.no_grad()
    def __call__(self, labels: Tensor, seeds: list[int], steps: int = 25, guidance_scale: float = 1.0) -> Tensor:
        """Sample one image for each label.

        Args:
            labels: ``int64 [N]``.
            seeds: one seed an image; an image depends on its own seed and label alone, not on the batch it is in.
            steps: denoiser calls an image.
            guidance_scale: w of classifier-free guidance; 1 is the conditional model and needs no second call.

        Returns:
            ``uint8 [N,H,W,C]``.
        """
        from erasediff.models.sampler import sample

        return sample(self.denoiser, deterministic(self.scheduler), self.image_shape, self.classes, labels, seeds, steps, guidance_scale)
