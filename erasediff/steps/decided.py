"""What decides a step's record.

A step whose record was made from exactly this has nothing left to do, and that is known before the step's libraries are loaded.
"""

from __future__ import annotations

from collections.abc import Callable

from erasediff.records.base import Record
from erasediff.records.measurements import Measurements
from erasediff.records.nouns import BaseRecord, ErasedRecord, ExportedRecord, ForgetSetRecord, RegisteredRecord, VerdictRecord
from erasediff.records.workdir import CHECKPOINT, Run


def base_of(run: Run) -> dict[str, str]:
    """What decides the base: the plan alone."""
    return {"plan": run.plan().digest()}


def forget_set_of(run: Run) -> dict[str, str]:
    """What decides the forget set."""
    return {"plan": run.plan().digest(), "base": run.need(BaseRecord, "train-base").digest()}


def erased_of(run: Run) -> dict[str, str]:
    """What decides the erased model: in a batch the forget sets of the others too."""
    base, forget_set = run.need(BaseRecord, "train-base"), run.need(ForgetSetRecord, "version-forget-set")
    beside = {f"forget_set.{other.name}": other.need(ForgetSetRecord, "version-forget-set").digest() for other in run.others()}
    return {"base": base.digest(), "forget_set": forget_set.digest(), "config": run.config().digest(), **beside}


def measurements_of(run: Run) -> dict[str, str]:
    """What decides the measurements."""
    base, erased = run.need(BaseRecord, "train-base"), run.need(ErasedRecord, "erase")
    return {"base": base.digest(), "erased": erased.digest(), "policy": run.policy().digest()}


def verdict_of(run: Run) -> dict[str, str]:
    """What decides the verdict."""
    base, measured = run.need(BaseRecord, "train-base"), run.need(Measurements, "evaluate")
    return {"measurements": measured.digest(), "policy": run.policy().digest(), "base": base.digest()}


def exported_of(run: Run) -> dict[str, str]:
    """What decides the exported graph."""
    return {"erased": run.need(ErasedRecord, "erase").digest(), "verdict": run.need(VerdictRecord, "gate").digest()}


def registered_of(run: Run) -> dict[str, str]:
    """What decides the registered version."""
    return {"exported": run.need(ExportedRecord, "export-onnx").digest(), "verdict": run.need(VerdictRecord, "gate").digest()}


_DECIDED: dict[str, tuple[type[Record], Callable[[Run], dict[str, str]]]] = {
    "train_base": (BaseRecord, base_of),
    "version_forget_set": (ForgetSetRecord, forget_set_of),
    "erase": (ErasedRecord, erased_of),
    "evaluate": (Measurements, measurements_of),
    "gate": (VerdictRecord, verdict_of),
    "export_onnx": (ExportedRecord, exported_of),
    "register": (RegisteredRecord, registered_of),
}


def standing(step: str, run: Run) -> Record | None:
    """The record of a step that has nothing left to do, or ``None``.

    Raises:
        BadInput: an earlier step is missing, or a record cannot be read.
    """
    if step not in _DECIDED or (run.folder / CHECKPOINT).exists():  # a killed erasure may have left it behind its record
        return None
    kind, decided_by = _DECIDED[step]
    present = run.find(kind)
    return present if present is not None and present.made_from == decided_by(run) else None
