"""p(c | x_t) over the retained classes: the exact Bayes posterior of a kernel density of the retained images."""

from __future__ import annotations

import torch
from torch import Tensor

from erasediff.models.denoiser import NoiseSchedule

_MAX_IMAGES = 8192


class RetainedPosterior:
    """A noise-aware classifier over the retained classes that needs no training.

    With each retained class a Gaussian kernel density of its images, q(x_0 | c) = mean_i N(x_i, h²), the noised density
    is q(x_t | c) = mean_i N(√ā_t·x_i, (1-ā_t) + ā_t·h²) in closed form, and Bayes' rule gives the posterior at a uniform
    prior over classes. It never sees a forget image.
    """

    def __init__(self, images: Tensor, labels: Tensor, schedule: NoiseSchedule, bandwidth: float) -> None:
        """Keep the retained images.

        Args:
            images: ``float32 [N,C,H,W]`` in -1..1; beyond 8,192 an evenly spaced part of them is used.
            labels: ``int64 [N]``, the retained classes.
            schedule: the forward process.
            bandwidth: h, the kernel's standard deviation in units of the pixel range.
        """
        keep = torch.arange(len(images)) if len(images) <= _MAX_IMAGES else torch.linspace(0, len(images) - 1, _MAX_IMAGES).long()
        self._points = images[keep].flatten(1)
        self._norms = self._points.square().sum(1)
        self._classes, self._member = torch.unique(labels[keep], return_inverse=True)
        self._log_counts = torch.bincount(self._member).float().log()
        self._schedule = schedule
        self._bandwidth = bandwidth

    def log_densities(self, noised: Tensor, timesteps: Tensor) -> Tensor:
        """Log q(x_t | c) up to a constant of x_t and t: ``[B, retained classes]``, in the order of the sorted labels."""
        signal = self._schedule.alphas_cumprod.to(noised.device)[timesteps].unsqueeze(1)
        points = noised.flatten(1)
        distances = points.square().sum(1, keepdim=True) - 2 * signal.sqrt() * points @ self._points.T + signal * self._norms
        logits = -distances / (2 * (1 - signal + signal * self._bandwidth**2))
        columns = [torch.logsumexp(logits[:, self._member == k], dim=1) for k in range(len(self._classes))]
        return torch.stack(columns, dim=1) - self._log_counts

    def draw(self, noised: Tensor, timesteps: Tensor, generator: torch.Generator) -> Tensor:
        """One retained label ``[B]`` for each ``x_t [B,C,H,W]``, drawn from p(c | x_t)."""
        probabilities = self.log_densities(noised, timesteps).softmax(dim=1)
        picked = torch.multinomial(probabilities.cpu(), 1, generator=generator).squeeze(1)
        drawn: Tensor = self._classes[picked.to(noised.device)]
        return drawn
