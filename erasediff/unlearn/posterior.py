"""p(c | x_t) over classes of images: the exact Bayes posterior of a kernel density."""

from __future__ import annotations

import torch
from torch import Tensor

from erasediff.models.process import NoiseSchedule
from erasediff.unlearn.randomness import Randomness

_MAX_IMAGES = 8192


class ClassPosterior:
    """A noise-aware classifier that needs no training.

    With each class a Gaussian kernel density of its images, q(x_0 | c) = mean_i N(x_i, h²), the noised density is
    q(x_t | c) = mean_i N(√ā_t·x_i, (1-ā_t) + ā_t·h²) in closed form, and Bayes' rule gives the posterior at a uniform
    prior over classes. It knows the classes it was given: for the draw of retained labels it never sees a forget image.
    """

    def __init__(self, images: Tensor, labels: Tensor, schedule: NoiseSchedule, bandwidth: float) -> None:
        """Keep the images.

        Args:
            images: ``float32 [N,C,H,W]`` in -1..1; beyond 8,192 an evenly spaced part of them is used.
            labels: ``int64 [N]``, their classes.
            schedule: the forward process.
            bandwidth: h, the kernel's standard deviation in units of the pixel range.
        """
        keep = torch.arange(len(images)) if len(images) <= _MAX_IMAGES else torch.linspace(0, len(images) - 1, _MAX_IMAGES).long()
        self._points = images[keep].flatten(1)
        self._norms = self._points.square().sum(1)
        self.classes, self._member = torch.unique(labels[keep], return_inverse=True)
        self._log_counts = torch.bincount(self._member).float().log()
        self._schedule = schedule
        self._bandwidth = bandwidth

    def log_densities(self, noised: Tensor, timesteps: Tensor) -> Tensor:
        """Log q(x_t | c) up to a constant of x_t and t: ``[B, classes]``, in the order of :attr:`classes`."""
        signal = self._schedule.alphas_cumprod.to(noised.device)[timesteps].unsqueeze(1)
        points = noised.flatten(1)
        distances = points.square().sum(1, keepdim=True) - 2 * signal.sqrt() * points @ self._points.T + signal * self._norms
        logits = -distances / (2 * (1 - signal + signal * self._bandwidth**2))
        columns = [torch.logsumexp(logits[:, self._member == k], dim=1) for k in range(len(self.classes))]
        return torch.stack(columns, dim=1) - self._log_counts

    def probabilities(self, noised: Tensor, timesteps: Tensor) -> Tensor:
        """p(c | x_t): ``[B, classes]``, in the order of :attr:`classes`."""
        return self.log_densities(noised, timesteps).softmax(dim=1)

    def draw(self, noised: Tensor, timesteps: Tensor, random: Randomness) -> Tensor:
        """One label ``[B]`` for each ``x_t [B,C,H,W]``, drawn from p(c | x_t)."""
        drawn: Tensor = self.classes[random.rows_of(self.probabilities(noised, timesteps))]
        return drawn
