"""The interface of every erasure method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from erasediff.records.config import EraseConfig
from erasediff.unlearn.workbench import Workbench


@dataclass(frozen=True)
class StepReport:
    """The numbers of one step; a method leaves at 0 what it does not compute."""

    retain_loss: float = 0.0
    forget_loss: float = 0.0
    multiplier: float = 0.0
    gradient_cosine: float = 0.0


class Method(Protocol):
    """An erasure method: it prepares once at the base, then puts a direction into the parameters' ``.grad`` at every step.

    What ``prepare`` computes is a function of the base, the data and the seed, so a resumed run computes it again.
    ``keeps_earlier`` says whether labels that were forgotten before stay forgotten: a method without
    a term for them may bring them back.
    """

    keeps_earlier: ClassVar[bool]

    def __init__(self, config: EraseConfig) -> None:
        """Configure it."""
        ...

    def prepare(self, bench: Workbench) -> None:
        """Prepare once before the first step: masks, Fisher information, other starting weights."""
        ...

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """Compute the gradients, combine them and leave the result to the optimiser.

        Raises:
            NonFinite: a loss, gradient or coefficient is NaN or infinite; no gradient is left behind.
        """
        ...
