"""λ: how much of the forget gradient joins the retain gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erasediff.records.config import MultiplierName


@dataclass(frozen=True)
class GradientDots:
    """The three inner products that decide λ: ⟨∇g,∇g⟩, ⟨∇g,∇L_r⟩ and ⟨∇L_r,∇L_r⟩, over all parameters."""

    forget_forget: float
    forget_retain: float
    retain_retain: float

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two gradients; 0 where one of them vanishes."""
        product = (self.forget_forget * self.retain_retain) ** 0.5
        return self.forget_retain / product if product > 0 else 0.0


def gradient_dots(retain: Sequence[Tensor], forget: Sequence[Tensor]) -> GradientDots:
    """Inner products of two gradients given tensor by tensor, without a flattened copy of either."""

    def square(gradient: Sequence[Tensor]) -> float:
        return float(torch.stack(torch._foreach_norm(list(gradient))).square().sum())

    cross = torch.stack([torch.vdot(a.flatten(), b.flatten()) for a, b in zip(forget, retain, strict=True)]).sum()
    return GradientDots(square(forget), float(cross), square(retain))


def paper(dots: GradientDots, eta: float) -> float:
    """λ = max(0, η - ⟨∇g,∇L_r⟩/‖∇g‖²): the closed form of the paper's quadratic program (2401.05779, §3.2).

    Where λ > 0 the update δ = ∇L_r + λ∇g satisfies ⟨∇g,δ⟩ = η‖∇g‖² exactly. If ∇g vanishes, λ = 0.
    """
    if dots.forget_forget == 0.0:
        return 0.0
    return max(0.0, eta - dots.forget_retain / dots.forget_forget)


def cosine(dots: GradientDots, eta: float) -> float:
    """λ = max(0, η - cos(∇g,∇L_r)): what the released code computes when its adaptive branch is repaired."""
    return max(0.0, eta - dots.cosine)


def fixed(dots: GradientDots, eta: float) -> float:
    """λ = η: a plain weighted sum of the two losses."""
    return eta


MULTIPLIERS: dict[MultiplierName, Callable[[GradientDots, float], float]] = {
    "paper": paper,
    "cosine": cosine,
    "fixed": fixed,
}
