"""Erasure methods: one short file each, one line each in :data:`METHODS`."""

from __future__ import annotations

from collections.abc import Callable

from erasediff.records.config import EraseConfig, MethodName
from erasediff.unlearn.methods import erasediff, finetune
from erasediff.unlearn.methods.base import Method, StepReport

__all__ = ["METHODS", "Method", "StepReport"]

METHODS: dict[MethodName, Callable[[EraseConfig], Method]] = {
    "erasediff": erasediff.EraseDiff,
    "finetune": finetune.FineTune,
}
