"""NegGrad: descend the retain loss while ascending the forget loss."""

from __future__ import annotations

from typing import ClassVar

import torch

from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.multiplier import gradient_dots
from erasediff.unlearn.workbench import Workbench


class NegGrad:
    """Descend the denoising loss of retain images and ascend that of forget images. 2F+2B.

        δ = ∇L_r(θ) - η∇L_f(θ),   L_f(θ) = E_{D_f} ‖ε - ε_θ(x_t | c)‖² with the true ε

    Source: the negative gradient of Golatkar et al. (arXiv 1911.04933, §6, baselines), joined with the retain loss as NegGrad+
    of Kurmanji et al. (arXiv 2302.09880, §4, baselines): β·L_r - (1-β)·L_f.

    Deviation: η = (1-β)/β is ``erase.eta``, so that one number means the strength of forgetting for both methods that
    weigh two gradients; the common factor β is part of the learning rate.
    """

    keeps_earlier: ClassVar[bool] = False

    def __init__(self, config: EraseConfig) -> None:
        self._eta = config.eta

    def prepare(self, bench: Workbench) -> None:
        """Nothing to prepare."""

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        kept, batch = bench.retain_batch(), bench.forget_batch()
        retain, forget = bench.denoising_gradients(lambda: kept, lambda: batch)
        cosine = gradient_dots(retain.tensors, forget.tensors).cosine
        torch._foreach_add_(retain.tensors, forget.tensors, alpha=-self._eta)
        bench.leave(retain.tensors)
        return StepReport(retain.loss, forget.loss, -self._eta, cosine)
