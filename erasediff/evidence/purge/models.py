"""The store "models": weights, graphs and detectors in the workdir that know the class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import FETCHED_PREFIX
from erasediff.evidence.purge.folder import folder_items, remove_file
from erasediff.evidence.purge.store import RETRY_LATER, Kept, Listing, PurgeItem, Store
from erasediff.evidence.purge.survey import Subject, Survey, is_open
from erasediff.files import abandoned_folders
from erasediff.records.core import BaseRecord, ErasedRecord, ExportedRecord
from erasediff.tracking import WEIGHTS_TAG, Tracking

WEIGHTS, GRAPHS, DETECTORS, UNKNOWN = (
    "files of models that know the class",
    "files of exported graphs that know the class",
    "detectors that know the class",
    "files of models that no record names",
)
FETCHED = "fetched models that killed commands left"
_NAME = 16  # a model's folder is named by this many characters of its weights' digest


def models_store(subject: Subject, found: Survey, tracking: Tracking) -> Store:
    """Models of the workdir."""

    def look() -> Listing:
        root, attempts = subject.run.workdir.root, subject.run.workdir.attempts()
        items = [*_weights(subject, found), *(item for run in attempts for item in _graphs(run, subject, found))]
        unknown = _unknown(subject, found, attempts, tracking)
        needed = {run.detector() for run in subject.opened}
        detectors = {run.detector() for run in subject.attempts}
        items += [item for path in abandoned_folders(root, FETCHED_PREFIX) for item in folder_items(path, FETCHED, root)]
        items += [item for path in sorted(detectors - needed) for item in _detector(path)]
        held = sum(path.is_file() for path in detectors & needed)
        kept = [*found.kept, Kept(DETECTORS, held, f"an open attempt is judged by them: {RETRY_LATER}")]
        if subject.opened:
            kept.append(Kept(UNKNOWN, len(unknown), f"an open attempt may still record them: {RETRY_LATER}"))
        else:
            items += unknown
        return Listing(tuple(items), tuple(kept))

    return Store("models", look, "listed the folders of models, graphs and detectors again")


def _weights(subject: Subject, found: Survey) -> Iterator[PurgeItem]:
    models, staying = subject.run.workdir.models, {digest[:_NAME] for digest in found.staying}
    for name in sorted({digest[:_NAME] for digest in found.plan.revoked} - staying):
        yield from folder_items(models / name, WEIGHTS, models)


def _graphs(run: Attempt, subject: Subject, found: Survey) -> Iterator[PurgeItem]:
    """The graph of an attempt, if it was revoked, or belongs to the request and is not deployed; else what lies beside it and no record names."""
    exported = run.find(ExportedRecord)
    digest = None if exported is None else exported.onnx.sha256
    own = run.name in {attempt.name for attempt in subject.attempts}
    if digest not in found.staying and (own or (digest in found.plan.revoked and not is_open(run))):
        yield from folder_items(run.folder / "onnx", GRAPHS, run.folder)
    elif not is_open(run):
        named = () if exported is None else [Path(pointer.uri).name for pointer in exported.files]
        yield from (item for path in _in(run.folder / "onnx") if path.name not in named and path.suffix != ".json" for item in _unrecorded(path))


def _detector(path: Path) -> Iterator[PurgeItem]:
    """A detector and its partial files."""
    for file in sorted(path.parent.glob(f"*{path.stem}*")):
        yield PurgeItem(DETECTORS, partial(remove_file, file))


def _unknown(subject: Subject, found: Survey, attempts: list[Attempt], tracking: Tracking) -> list[PurgeItem]:
    """Files of models that no record and no registered version names: leftovers of killed steps."""
    named = {digest[:_NAME] for digest in (*found.plan.revoked, *found.staying)}
    for run in attempts:
        base, erased = run.find(BaseRecord), run.find(ErasedRecord)
        named |= {record.model.weights.uri for record in (base, erased) if record is not None}
    versions = [*tracking.champions(), *tracking.versions(subject.name)]
    named |= {version.tags[WEIGHTS_TAG][:_NAME] for version in versions if WEIGHTS_TAG in version.tags}
    models = subject.run.workdir.models
    return [item for path in _in(models) if path.name not in named for item in _unrecorded(path)]


def _in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _unrecorded(path: Path) -> list[PurgeItem]:
    if path.is_dir() and not path.is_symlink():
        return list(folder_items(path, UNKNOWN, path.parent))
    return [PurgeItem(UNKNOWN, partial(remove_file, path))]
