"""Remove a class from the samples that an attempt keeps for its report."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from erasediff.attempts.attempt import GRIDS, Attempt
from erasediff.errors import IntegrityError
from erasediff.files import atomic_path, write_atomic
from erasediff.records.core import BaseRecord

_FORGOTTEN = ("forgotten_before", "forgotten_after")
_RETAINED = ("retained_before", "retained_after")


def shows_class(attempt: Attempt, name: str) -> bool:
    """Whether a grid of an attempt shows samples of a class, forgotten or retained.

    Raises:
        IntegrityError: a grid cannot be read.
    """
    return any(_shows(attempt, name, path) for grid in GRIDS if (path := attempt.folder / grid).is_file())


def _shows(attempt: Attempt, name: str, path: Path) -> bool:
    arrays = _read(path)
    forgotten = attempt.plan().request.label == name and any(array in arrays for array in _FORGOTTEN)
    return forgotten or bool(np.isin(arrays["labels"], _rows(attempt, name)).any())


def _rows(attempt: Attempt, name: str) -> list[int]:
    """The row of a class in the model of an attempt, in a list; an empty one if that has no such class."""
    model = attempt.need(BaseRecord).model
    return [model.row(name)] if name in model.class_names else []


def remove_class(attempt: Attempt, name: str, path: Path, render: Callable[[Attempt, Path], bytes]) -> None:
    """Remove a class from an attempt's grids and report.

    The new grid gets its name after the report is rewritten, and the first grid is deleted last. A kill before that leaves a grid that still shows
    the class, so all of it is repeated.

    Args:
        attempt: the attempt.
        name: the class to remove.
        path: the workdir's copy of the latest report.
        render: renders the attempt's report as HTML, with the grid in a file.
    """
    first, later = (attempt.folder / name for name in GRIDS)
    pending, report = attempt.folder / f".{GRIDS[1]}.part", attempt.folder / "report.html"
    arrays = _read(first if first.is_file() else later)
    shown = ~np.isin(arrays["labels"], _rows(attempt, name))
    rest = {"labels": arrays["labels"][shown], **{array: arrays[array][shown] for array in _RETAINED}}
    if attempt.plan().request.label != name:
        rest |= {array: arrays[array] for array in _FORGOTTEN if array in arrays}
    with atomic_path(pending) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **rest)
    if report.is_file():
        html, before = render(attempt, pending), report.read_bytes()
        if path.is_file() and path.read_bytes() == before:
            write_atomic(path, html)
        write_atomic(report, html)
    pending.replace(later)
    first.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"a grid of samples cannot be read ({type(error).__name__}): remove it with its report, and purge again.") from None
    if not {"labels", *_RETAINED} <= arrays.keys():
        raise IntegrityError("a grid of samples does not name its labels: remove it and its report, and run the purge again.")
    return arrays
