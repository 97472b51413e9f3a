"""Erasure methods: one short file each, one line each in :data:`METHODS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from erasediff.models.denoiser import Denoiser
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods import erasediff
from erasediff.unlearn.methods.erasediff import StepReport
from erasediff.unlearn.objective import NoisedBatch

__all__ = ["METHODS", "Method", "StepReport"]


class Method(Protocol):
    """Leaves the update direction of one step in the parameters' ``.grad``."""

    def __call__(
        self,
        parameters: Sequence[Tensor],
        denoiser: Denoiser,
        retain: NoisedBatch,
        forget: NoisedBatch,
        target: Tensor,
    ) -> StepReport:
        """Compute the gradients and combine them."""
        ...


METHODS: dict[str, Callable[[EraseConfig], Method]] = {
    "erasediff": erasediff.EraseDiff,
}
