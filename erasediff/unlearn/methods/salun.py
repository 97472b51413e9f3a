"""SalUn (Fan et al., arXiv 2310.12508): relabel, and move only the weights that the forget loss is most sensitive to."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.methods.prelude import base_gradients
from erasediff.unlearn.multiplier import gradient_dots
from erasediff.unlearn.workbench import Workbench

BETA = 1e-3
"""β, the weight of the retain loss: the authors' setting for forgetting a class of CIFAR-10."""


class SalUn:
    """One masked step on the relabelled forget loss plus β times the retain loss. 3F+2B with target ``relabel``.

        m_S = 1[ |∇_θ ℓ_f(θ_o; D_f)| ≥ γ ],  γ the median over all weights
        δ = m_S ⊙ ∇( E_{D_f} ‖ε_θ(x_t | c') - ε_θ(x_t | c)‖² + β·ℓ_MSE(θ; D_r) ),   c' ≠ c

    Source: 2310.12508, §4: the weight saliency map (with ℓ_f the denoising loss under the true ε), the update m_S ⊙ Δθ
    + θ_o, and the objective for generation.

    Deviations: ℓ_f's gradient is summed over a fixed number of random batches (:mod:`prelude`) and not over one pass of
    D_f, so that the cost does not depend on the size of D_f. ε_θ(x_t | c') is the target that the config names, taken of
    the teacher that it names and over the states of ``visited_batch``: all methods with a target share it, and
    ``target: relabel, teacher: current, visited_share: 0`` is the paper's. Label dropout is on the retain pass only.
    """

    keeps_earlier: ClassVar[bool] = True

    def __init__(self, config: EraseConfig) -> None:
        self._beta = BETA if config.balance is None else config.balance
        self._mask: list[Tensor] = []

    def prepare(self, bench: Workbench) -> None:
        """Find the saliency mask at the base."""
        total = [torch.zeros_like(parameter) for parameter in bench.parameters]
        for gradient in base_gradients(bench, "saliency", bench.forget_batch):
            torch._foreach_add_(total, gradient.tensors)
        self._mask = upper_half(total)

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        batch, kept = bench.aimed_batch(), bench.retain_batch()
        retain, forget = bench.denoising_gradients(lambda: kept, lambda: batch)
        cosine = gradient_dots(retain.tensors, forget.tensors).cosine
        torch._foreach_add_(forget.tensors, retain.tensors, alpha=self._beta)
        torch._foreach_mul_(forget.tensors, self._mask)
        bench.leave(forget.tensors)
        return StepReport(retain.loss, forget.loss, 1 / self._beta, cosine)


def upper_half(values: list[Tensor]) -> list[Tensor]:
    """A boolean mask of the half of all entries that is largest in magnitude, without a joint copy of them.

    The bits of non-negative ``float32`` numbers, read as integers, are in the numbers' order: the median is found bit by
    bit, by counting.
    """
    bits = [value.abs().float().view(torch.int32) for value in values]
    half = (sum(value.numel() for value in bits) + 1) // 2
    threshold = 0
    for bit in range(30, -1, -1):
        if sum(int((value >= threshold + 2**bit).sum()) for value in bits) >= half:
            threshold += 2**bit
    return [value >= threshold for value in bits]
