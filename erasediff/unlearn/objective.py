"""The two losses of EraseDiff and the targets of the second one.

    retain  L_r(θ) = E ‖ε - ε_θ(x_t | c)‖²    over the retain set: the ordinary denoising loss
    forget  L_f(θ) = E ‖ε_f - ε_θ(x_t | c)‖²  over the forget set: minimised, towards a target ε_f that is not the truth

Source: Wu et al., arXiv 2401.05779, eq. 3 and 4. The targets:

    relabel   ε_f = ε_T(x_t | c_m), c_m uniform over the retained labels (the paper's)
    anchor    ε_f = ε_T(x_t | c_m), c_m one fixed retained label
    mixture   ε_f = ε_T(x_t | c_m), c_m drawn from p(c | x_t, c retained): an unbiased estimate of the retained
              mixture's score, where the uniform draw gives the score of a geometric mean (docs/algorithm.md)
    noise     ε_f ~ U[0,1) (the paper's)

T is the teacher: the frozen base, or the current weights without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from erasediff.models.denoiser import Denoiser


@dataclass(frozen=True)
class NoisedBatch:
    """Noised images with their condition: ``noised``, ``noise [B,C,H,W]``, ``timesteps``, ``labels [B]``."""

    noised: Tensor
    noise: Tensor
    timesteps: Tensor
    labels: Tensor


Target = Callable[[NoisedBatch, Denoiser, torch.Generator], Tensor]
"""ε_f ``[B,C,H,W]`` for a forget batch, given the teacher; it carries no gradient."""

LabelDraw = Callable[[NoisedBatch, torch.Generator], Tensor]


def retain_loss(denoiser: Denoiser, batch: NoisedBatch) -> Tensor:
    """L_r of a batch: a scalar."""
    return mse_loss(denoiser(batch.noised, batch.timesteps, batch.labels), batch.noise)


def forget_loss(denoiser: Denoiser, batch: NoisedBatch, target: Tensor) -> Tensor:
    """L_f of a batch against ``target [B,C,H,W]``: a scalar."""
    return mse_loss(denoiser(batch.noised, batch.timesteps, batch.labels), target)


def relabelled(draw: LabelDraw) -> Target:
    """The target that asks the teacher under another label, drawn by ``draw``."""

    @torch.no_grad()
    def target(batch: NoisedBatch, teacher: Denoiser, generator: torch.Generator) -> Tensor:
        return teacher(batch.noised, batch.timesteps, draw(batch, generator))

    return target


def repelled(target: Target, base: Denoiser, label: int, strength: float) -> Target:
    """Push a target away from what the base predicts for the forgotten label: ε_f + ρ(ε_f - ε_base(x_t | label)).

    It is guidance with the forgotten label as the negative condition, trained in (cf. Gandikota et al. 2303.07345, eq. 7).
    """

    @torch.no_grad()
    def away(batch: NoisedBatch, teacher: Denoiser, generator: torch.Generator) -> Tensor:
        goal = target(batch, teacher, generator)
        return goal + strength * (goal - base(batch.noised, batch.timesteps, torch.full_like(batch.labels, label)))

    return away


def uniform_over(labels: Tensor) -> LabelDraw:
    """Draw a label for each sample uniformly from ``labels``."""

    def draw(batch: NoisedBatch, generator: torch.Generator) -> Tensor:
        picked = torch.randint(0, len(labels), (len(batch.labels),), generator=generator)
        return labels[picked].to(batch.labels.device)

    return draw


def always(label: int) -> LabelDraw:
    """Always the same label."""

    def draw(batch: NoisedBatch, generator: torch.Generator) -> Tensor:
        return torch.full_like(batch.labels, label)

    return draw


def uniform_noise(batch: NoisedBatch, teacher: Denoiser, generator: torch.Generator) -> Tensor:
    """ε_f ~ U[0,1), the paper's second target; the teacher is not asked."""
    return torch.rand(batch.noised.shape, generator=generator).to(batch.noised.device)
