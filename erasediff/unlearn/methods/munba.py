"""MUNBa (Wu and Harandi, arXiv 2411.15537): a Nash bargain between the two gradients, independent of their lengths."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from erasediff.errors import NonFinite
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.multiplier import gradient_dots
from erasediff.unlearn.workbench import Workbench

XI = 1e-6
"""ξ, against a division by zero: ten times the error of a cosine in ``float32``."""


class MUNBa:
    """Weigh the retain and the forget gradient by the Nash bargaining solution of their two players. 3F+2B with ``relabel``.

        δ = α_r g_r + α_f g_f,   α_i = (1/‖g_i‖) · √((1 - cos φ) / (sin²φ + ξ)),   φ the angle between g_r and g_f

    It solves GᵀG α = 1/α: both players gain ⟨g_i, α_i δ⟩ = 1, however long their gradients are, and ‖δ‖ = √2.

    Source: 2411.15537, §3, the theorem with the closed-form solution and the regularisation ξ that follows it.

    Deviations: (1 - cos φ)/sin²φ is written as 1/(1 + cos φ), the same number, which is 1/2 and not 0/0 for parallel
    gradients; ξ is added there. For opposed gradients, where the paper is at a Pareto stationary point and stops, δ then
    vanishes with them. A gradient of length 0 is refused. g_f descends the forget loss with the target that the
    config names, which all methods with a target share.
    """

    keeps_earlier: ClassVar[bool] = True

    def __init__(self, config: EraseConfig) -> None:
        pass

    def prepare(self, bench: Workbench) -> None:
        """Nothing to prepare."""

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        batch = bench.visited_batch()
        batch = batch.aimed_at(bench.target_of(batch))
        kept = bench.retain_batch()
        retain, forget = bench.denoising_gradients(lambda: kept, lambda: batch)
        dots = gradient_dots(retain.tensors, forget.tensors)
        lengths = math.sqrt(dots.retain_retain), math.sqrt(dots.forget_forget)
        if not (math.isfinite(dots.cosine) and 0 < lengths[0] < math.inf and 0 < lengths[1] < math.inf):
            raise NonFinite("α is not finite")
        share = 1 / math.sqrt(1 + max(-1.0, dots.cosine) + XI)
        torch._foreach_mul_(retain.tensors, share / lengths[0])
        torch._foreach_add_(retain.tensors, forget.tensors, alpha=share / lengths[1])
        bench.leave(retain.tensors)
        return StepReport(retain.loss, forget.loss, lengths[0] / lengths[1], dots.cosine)
