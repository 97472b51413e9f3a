"""EraseDiff (Wu et al., arXiv 2401.05779): forgetting as a constraint on the retain loss, solved in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erasediff.errors import NonFinite
from erasediff.models.denoiser import Denoiser
from erasediff.records.config import EraseConfig
from erasediff.unlearn.multiplier import MULTIPLIERS, gradient_dots
from erasediff.unlearn.objective import NoisedBatch, forget_loss, retain_loss


@dataclass(frozen=True)
class StepReport:
    """The numbers of one step."""

    retain_loss: float
    forget_loss: float
    multiplier: float
    gradient_cosine: float


class EraseDiff:
    """One step of EraseDiff.

    The paper asks for min_θ L_r(θ) subject to g(θ) = L_f(θ) - min_φ L_f(φ) ≤ 0. A step moves along the δ nearest to
    ∇L_r that lowers g at least at rate η:

        argmin_δ ½‖∇L_r - δ‖²  subject to  ⟨∇g,δ⟩ ≥ η‖∇g‖²
        ⇒  δ = ∇L_r + λ∇g,     λ = max(0, η - ⟨∇g,∇L_r⟩/‖∇g‖²)

    min_φ L_f(φ) is a constant of θ, so ∇g = ∇L_f and the inner loop that would estimate it is not run: it cannot change
    δ. Each loss has one forward and one backward pass; the two gradients are kept apart until λ is known.
    """

    def __init__(self, config: EraseConfig) -> None:
        self._multiplier = MULTIPLIERS[config.multiplier]
        self._eta = config.eta

    def __call__(self, parameters: Sequence[Tensor], denoiser: Denoiser, retain: NoisedBatch, forget: NoisedBatch, target: Tensor) -> StepReport:
        """Leave δ in the parameters' ``.grad``.

        Raises:
            NonFinite: a loss or λ is NaN or infinite; no gradient is left behind.
        """
        loss_r = _finite(retain_loss(denoiser, retain), "retain loss")
        grad_r = torch.autograd.grad(loss_r, parameters)
        loss_f = _finite(forget_loss(denoiser, forget, target), "forget loss")
        grad_f = torch.autograd.grad(loss_f, parameters)

        dots = gradient_dots(grad_r, grad_f)
        multiplier = self._multiplier(dots, self._eta)
        if not all(map(math.isfinite, (dots.forget_forget, dots.forget_retain, dots.retain_retain, multiplier))):
            raise NonFinite("λ is not finite")
        delta = torch._foreach_add(grad_r, grad_f, alpha=multiplier)
        for parameter, direction in zip(parameters, delta, strict=True):
            parameter.grad = direction
        return StepReport(loss_r.item(), loss_f.item(), multiplier, dots.cosine)


def _finite(loss: Tensor, name: str) -> Tensor:
    if not torch.isfinite(loss):
        raise NonFinite(f"the {name} is not finite")
    return loss
