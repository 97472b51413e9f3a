"""What a step leaves behind about itself: how long it took, or why it failed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from erasediff.errors import EraseDiffError
from erasediff.files import write_atomic
from erasediff.records.nouns import Failure
from erasediff.records.workdir import Run

STEPS = ("train_base", "version_forget_set", "erase", "evaluate", "gate", "export_onnx", "register", "roll_out", "promote", "purge", "certify")
"""The steps between opening an attempt and recording its outcome, in order."""


def write_failure(folder: Path, failure: Failure) -> None:
    """Write why a step failed."""
    with contextlib.suppress(EraseDiffError):  # a full disk cannot take the sentence either; it still goes to the terminal
        failure.write(folder / "failure.json")


def keep_seconds(run: Run, step: str, seconds: float) -> None:
    """Write how long a step took; one that had nothing left to do keeps the time of when it did the work."""
    known = read_seconds(run)
    path = run.folder / "seconds.json"
    write_atomic(path, json.dumps({**known, step: max(seconds, known.get(step, 0.0))}, sort_keys=True).encode())


def read_seconds(run: Run) -> dict[str, float]:
    """Seconds of every step of an attempt that ended well."""
    path = run.folder / "seconds.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def read_failure(folder: Path) -> Failure | None:
    """Why the last step in this folder failed, if it did."""
    path = folder / "failure.json"
    return Failure.read(path) if path.is_file() else None
