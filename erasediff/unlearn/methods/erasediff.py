"""EraseDiff (Wu et al., arXiv 2401.05779): forgetting as a constraint on the retain loss, solved in closed form."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from erasediff.errors import NonFinite
from erasediff.models.noised import NoisedBatch
from erasediff.models.optimisation import linear_decay
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.multiplier import MULTIPLIERS, gradient_dots
from erasediff.unlearn.workbench import Workbench


class EraseDiff:
    """One step of EraseDiff.

    The paper asks for min_θ L_r(θ) subject to g(θ) = L_f(θ) - min_φ L_f(φ) ≤ 0. A step moves along the δ nearest to
    ∇L_r that lowers g at least at rate η:

        argmin_δ ½‖∇L_r - δ‖²  subject to  ⟨∇g,δ⟩ ≥ η‖∇g‖²
        ⇒  δ = ∇L_r + λ∇g,     λ = max(0, η - ⟨∇g,∇L_r⟩/‖∇g‖²)

    min_φ L_f(φ) is a constant of θ, so ∇g = ∇L_f and the inner loop that would estimate it is not run: it cannot change
    δ. Each loss has one forward and one backward pass; the two gradients are kept apart until λ is known. The target takes
    one more pass of the teacher (`mixture` with repulsion two, `noise` none), and so does an ``erase.truth_share`` below 1.

    η may fall to 0 over the run: first forget, then repair. At η = 0 the constraint only forbids that g rises.
    """

    keeps_earlier: ClassVar[bool] = True

    def __init__(self, config: EraseConfig) -> None:
        self._config = config
        self._multiplier = MULTIPLIERS[config.multiplier]
        self._pool: list[NoisedBatch] = []

    def prepare(self, bench: Workbench) -> None:
        """Prepare a pool of forget batches with their targets, if ``erase.teacher_pool`` is set: a frozen teacher's predictions do not change."""
        random = bench.random_of("pool")
        self._pool = [bench.aimed_batch(random) for _ in range(self._config.teacher_pool)]

    def eta(self, step: int) -> float:
        """η at a step."""
        return self._config.eta * linear_decay(step, self._config.steps, self._config.eta_decay_fraction)

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        retain, forget = bench.denoising_gradients(bench.held_batch(), lambda: self._forget_batch(bench))
        dots = gradient_dots(retain.tensors, forget.tensors)
        multiplier = self._multiplier(dots, self.eta(bench.step))
        if not all(map(math.isfinite, (dots.forget_forget, dots.forget_retain, dots.retain_retain, multiplier))):
            raise NonFinite("λ is not finite")
        torch._foreach_add_(retain.tensors, forget.tensors, alpha=multiplier)
        bench.leave(retain.tensors)
        return StepReport(retain.loss, forget.loss, multiplier, dots.cosine)

    def _forget_batch(self, bench: Workbench) -> NoisedBatch:
        return self._pool[bench.step % len(self._pool)] if self._pool else bench.aimed_batch()
