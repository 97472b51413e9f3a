"""Fine-tuning on the retain set alone, which relies on catastrophic forgetting."""

from __future__ import annotations

from typing import ClassVar

import torch

from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.workbench import Workbench


class FineTune:
    """δ = ∇L_r. One forward and one backward pass; the forget set is not used."""

    keeps_earlier: ClassVar[bool] = False

    def __init__(self, config: EraseConfig) -> None:
        pass

    def prepare(self, bench: Workbench) -> None:
        """Nothing to prepare."""

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        retain = bench.denoising_gradient("retain loss", bench.retain_batch())
        bench.leave(retain.tensors)
        return StepReport(retain_loss=retain.loss)
