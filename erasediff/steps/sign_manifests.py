"""Sign the manifests of exported models that the signing key did not sign: those of an earlier version of EraseDiff, and those of an earlier key.

Each is compared, field by field, with the records of the attempt that exported it, so that an edited manifest gets no signature. A registered
version's is too: whoever may write MLflow's artifacts may not write the workdir.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.envelopes import read_manifest
from erasediff.errors import EraseDiffError, IntegrityError
from erasediff.evidence.purge.survey import ONNX_ARTIFACTS
from erasediff.evidence.signing import SigningKey, sign
from erasediff.files import read_bounded, write_atomic
from erasediff.records.base import MAX_DOCUMENT_BYTES, load_json
from erasediff.records.core import MANIFEST, SERVED, ErasedRecord, ExportedFiles, ExportedRecord, ModelRecord, ServedModel
from erasediff.records.measurements import Measurements
from erasediff.tracking import Tracking

_ONNX_TAG = "erasediff.onnx_sha256"


class ManifestPlace(Protocol):
    """Where a manifest lies."""

    @property
    def title(self) -> str:
        """The manifest, for sentences."""

    def opened(self) -> AbstractContextManager[Path]:
        """A folder that holds it."""

    def agrees(self, served: ServedModel) -> bool:
        """Whether it says what was recorded of its model."""

    def put(self, manifest: bytes) -> None:
        """Replace it."""


@dataclass(frozen=True)
class OfRun:
    """The manifest in the folder of an attempt."""

    attempt: Attempt

    @property
    def title(self) -> str:
        """The manifest, for sentences."""
        return f"the manifest of run {self.attempt.name}"

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The folder itself."""
        yield self.attempt.folder / ONNX_ARTIFACTS

    def agrees(self, served: ServedModel) -> bool:
        """Whether it says what the attempt's records say."""
        return _is_of_attempt(served, self.attempt)

    def put(self, manifest: bytes) -> None:
        """Replace it."""
        write_atomic(self.attempt.folder / ONNX_ARTIFACTS / MANIFEST, manifest)


@dataclass(frozen=True)
class OfVersion:
    """The manifest among the artifacts of a registered version; ``attempts`` are those of the workdir that exported its graph."""

    tracking: Tracking
    version: Any
    attempts: tuple[Attempt, ...]

    @property
    def title(self) -> str:
        """The manifest, for sentences."""
        return f"the manifest of version {self.version.version} of {self.version.name}"

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """A folder with a copy."""
        with tempfile.TemporaryDirectory(prefix="erasediff-manifest-") as folder:
            yield self.tracking.download(f"{self.tracking.artifacts_of(self.version, ONNX_ARTIFACTS)}/{MANIFEST}", Path(folder)).parent

    def agrees(self, served: ServedModel) -> bool:
        """Whether it says what the records of an attempt say that exported the version's graph, and names the model of the version's record."""
        exported = served.onnx.sha256 == self.version.tags[_ONNX_TAG] and any(_is_of_attempt(served, attempt) for attempt in self.attempts)
        return exported and _is_of(served, self.tracking.recorded_model(self.version))

    def put(self, manifest: bytes) -> None:
        """Replace it."""
        with tempfile.TemporaryDirectory(prefix="erasediff-manifest-") as folder:
            write_atomic(Path(folder) / MANIFEST, manifest)
            self.tracking.log_artifact(self.version.run_id, Path(folder) / MANIFEST, ONNX_ARTIFACTS)


def _is_of_attempt(served: ServedModel, attempt: Attempt) -> bool:
    exported, asked = attempt.need(ExportedRecord), (attempt.config().sampler.guidance_scale, _null_row(attempt))
    same = all(getattr(served, name) == getattr(exported, name) for name in ExportedFiles.model_fields if name != "made_from")
    return same and (served.guidance_scale, served.null_row) == asked and _is_of(served, attempt.need(ErasedRecord).model)


def _null_row(attempt: Attempt) -> bool:
    """Whether its model has a row for no class. All models of the versions had one whose measurements are no longer read."""
    path = attempt.path(Measurements)
    return not path.is_file() or load_json(read_bounded(path, MAX_DOCUMENT_BYTES, "the measurements")).get("null_row") is not False


def _is_of(served: ServedModel, model: ModelRecord) -> bool:
    same = all(getattr(served, name) == getattr(model, name) for name in ("dataset", "class_names", "forgotten", "epoch"))
    return same and served.weights_sha256 == model.weights.sha256


def manifests(workdir: Workdir, tracking: Tracking, model_names: Iterable[str]) -> Iterator[ManifestPlace]:
    """All manifests of a workdir's attempts and of registered models."""
    attempts = workdir.attempts()
    for attempt in attempts:
        if (attempt.folder / ONNX_ARTIFACTS / MANIFEST).is_file():
            yield OfRun(attempt)
    graphs = [(attempt, attempt.find(ExportedRecord)) for attempt in attempts]
    for name in model_names:
        for version in tracking.versions(name):
            if has_manifest(tracking, version):
                own = (attempt for attempt, exported in graphs if exported is not None and exported.onnx.sha256 == version.tags[_ONNX_TAG])
                yield OfVersion(tracking, version, tuple(own))


def has_manifest(tracking: Tracking, version: Any) -> bool:
    """Whether a registered version has an exported graph with its manifest."""
    tagged = _ONNX_TAG in version.tags and tracking.find_run(version.run_id) is not None
    return tagged and tracking.has_artifact(version.run_id, ONNX_ARTIFACTS, MANIFEST)


def sign_manifests(found: Iterable[ManifestPlace], key: SigningKey) -> int:
    """Sign each manifest that this key did not sign, after all of them were checked; returns how many.

    Raises:
        IntegrityError: a manifest does not say what was recorded of its model.
        Unreachable: the token or the service that holds the key does not sign.
    """
    unsigned = [(place, served) for place in found if (served := _checked(place, key)) is not None]
    for place, served in unsigned:
        place.put(sign(served, SERVED, key))
    return len(unsigned)


def _checked(place: ManifestPlace, key: SigningKey) -> ServedModel | None:
    """What a manifest says; ``None`` if this key signed it.

    Raises:
        BadInput: it is not a manifest.
        IntegrityError: it does not say what was recorded of its model.
    """
    with place.opened() as folder:
        try:
            read_manifest(folder, key.public)
            return None
        except EraseDiffError:
            served = _content(folder)
    if not place.agrees(served):
        raise IntegrityError(
            f"{place.title} does not say what was recorded of its model, so it is not signed: restore it and the attempt that exported it."
        )
    return served


def _content(folder: Path) -> ServedModel:
    """What a manifest says, in an envelope or, as an earlier version of EraseDiff wrote it, alone."""
    try:
        return read_manifest(folder, None)
    except EraseDiffError:
        return ServedModel.read(folder / MANIFEST)
