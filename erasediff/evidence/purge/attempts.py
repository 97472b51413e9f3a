"""The stores "dvc cache" and "workdir": files in the attempts' folders.

A list names the files that stay in an attempt's folder. All others are deleted, so that a forgotten kind of file does not stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from erasediff.attempts.attempt import GRIDS, KEY, Attempt
from erasediff.data.workspace import WORKSPACE
from erasediff.evidence.purge.folder import folder_items, remove_file
from erasediff.evidence.purge.grids import shows_class
from erasediff.evidence.purge.store import RETRY_LATER, Kept, Listing, PurgeItem, Store
from erasediff.evidence.purge.survey import Subject, is_open
from erasediff.files import PARTIAL, is_abandoned
from erasediff.records.core import BaseRecord
from erasediff.steps.table import CHECKPOINT

SCRATCH, CHECKPOINTS, PICTURES, PARTIAL_FILES, OTHERS = (
    "forget images in scratch folders",
    "checkpoints with optimiser state",
    "sample grids of the forgotten class",
    "files that killed steps left half-written",
    "other files of attempts",
)
_STAYS = frozenset({KEY, "curves.npz", "report.html", *GRIDS})
_STAYING_SUFFIXES = frozenset({".json", ".jsonl"})
_SCRATCH = ".scratch*"
_GRAPHS = "onnx"  # the store "models" handles these


def cache_store(subject: Subject) -> Store:
    """Temporary DVC workspaces with their caches, which killed steps left; DVC has no other cache here."""

    def look() -> Listing:
        workspaces = [path for run in subject.attempts for path in sorted(run.folder.glob(f"{_SCRATCH}/{WORKSPACE}"))]
        return Listing(tuple(item for path in workspaces for item in folder_items(path, "files of DVC workspaces", path.parent)))

    return Store("dvc cache", look, "searched every scratch folder again")


def workdir_store(subject: Subject, conceal: Callable[[Attempt], None]) -> Store:
    """Files of attempts.

    Args:
        subject: the subject of the purge.
        conceal: removes the class's images from an attempt's grids and report; it may be killed and repeated.
    """

    def look() -> Listing:
        root, everything = subject.run.workdir.root, subject.run.workdir.attempts()
        dataset = subject.run.plan().request.dataset
        showing = [run for run in everything if run.plan().request.dataset == dataset and shows_class(run, subject.label)]
        own = {run.name for run in subject.attempts}
        settled = [run for run in everything if run.name not in own and not is_open(run)]
        others = [run for run in everything if run.name not in own and _starts_from(run, subject.name)]
        items = [
            *(PurgeItem(PICTURES, partial(conceal, run)) for run in showing),
            *(item for run in subject.attempts for item in _leftovers(run)),
            *(item for run in others if not is_open(run) for item in _checkpoints(run)),
            *(item for folder in (root, *(run.folder for run in settled)) for item in _partial(folder)),
        ]
        busy = sum(1 for run in others if is_open(run) for _ in _checkpoints(run))
        return Listing(tuple(items), (Kept(CHECKPOINTS, busy, f"an open attempt still needs them: {RETRY_LATER}"),))

    return Store("workdir", look, "compared every attempt's folder again with the list of files that may stay")


def _starts_from(attempt: Attempt, name: str) -> bool:
    base = attempt.find(BaseRecord)
    return base is not None and base.name == name


def _leftovers(attempt: Attempt) -> Iterator[PurgeItem]:
    for path in sorted(attempt.folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.match(_SCRATCH):
                yield from _of_scratch(path)
            elif path.name != _GRAPHS:
                yield from folder_items(path, OTHERS, attempt.folder)
        elif CHECKPOINT not in path.name and path.name not in _STAYS and path.suffix not in _STAYING_SUFFIXES:
            yield PurgeItem(OTHERS, partial(remove_file, path))
    yield from _checkpoints(attempt)


def _of_scratch(folder: Path) -> Iterator[PurgeItem]:
    """A scratch folder, except its workspace, which the store "dvc cache" counts."""
    inside = sorted(folder.iterdir())
    for path in inside:
        if path.is_dir() and not path.is_symlink():
            if path.name != WORKSPACE:
                yield from folder_items(path, SCRATCH, folder.parent)
        else:
            yield PurgeItem(SCRATCH, partial(remove_file, path, folder.parent))
    if not inside:
        yield from folder_items(folder, SCRATCH, folder.parent)


def _checkpoints(attempt: Attempt) -> Iterator[PurgeItem]:
    """Checkpoints and their partial files."""
    return (PurgeItem(CHECKPOINTS, partial(remove_file, path)) for path in _in(attempt.folder, f"*{CHECKPOINT}*"))


def _partial(folder: Path) -> Iterator[PurgeItem]:
    """Files that killed processes left half-written, such as a report: nobody knows which classes they show. Checkpoints are counted apart."""
    left = [path for path in _in(folder, f".*{PARTIAL}") if CHECKPOINT not in path.name and is_abandoned(path)]
    return (PurgeItem(PARTIAL_FILES, partial(remove_file, path)) for path in left)


def _in(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())
