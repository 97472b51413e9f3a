"""Erasure methods: one short file each, one line each in :data:`METHODS`."""

from __future__ import annotations

from erasediff.records.config import MethodName
from erasediff.unlearn.methods import erasediff, finetune, munba, neggrad, retrain, sa, salun, sfron, siss
from erasediff.unlearn.methods.base import Method, StepReport

__all__ = ["METHODS", "Method", "StepReport"]

METHODS: dict[MethodName, type[Method]] = {
    "erasediff": erasediff.EraseDiff,
    "finetune": finetune.FineTune,
    "neggrad": neggrad.NegGrad,
    "salun": salun.SalUn,
    "sfron": sfron.SFRon,
    "munba": munba.MUNBa,
    "siss": siss.SISS,
    "sa": sa.SelectiveAmnesia,
    "retrain": retrain.Retrain,
}
