"""Sign the manifests of exported models that the signing key did not sign: those of an earlier version of EraseDiff, and those of an earlier key.

Each is compared with what the run, or the registered version, has recorded of its model, so that an edited manifest gets no signature.
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
from erasediff.files import write_atomic
from erasediff.records.core import MANIFEST, SERVED, ErasedRecord, ExportedRecord, ModelRecord, ServedModel
from erasediff.tracking import Tracking

_ONNX_TAG = "erasediff.onnx_sha256"


class Place(Protocol):
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
        """Whether it names the files, the verdict and the model of the attempt's records."""
        exported = self.attempt.need(ExportedRecord)
        same = all(getattr(served, name) == getattr(exported, name) for name in ("files", "solver", "weights_sha256", "verdict"))
        return same and _is_of(served, self.attempt.need(ErasedRecord).model)

    def put(self, manifest: bytes) -> None:
        """Replace it."""
        write_atomic(self.attempt.folder / ONNX_ARTIFACTS / MANIFEST, manifest)


@dataclass(frozen=True)
class OfVersion:
    """The manifest among the artifacts of a registered version."""

    tracking: Tracking
    version: Any

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
        """Whether it names the graph of the version's tag and the model of its record."""
        return served.onnx.sha256 == self.version.tags[_ONNX_TAG] and _is_of(served, self.tracking.recorded_model(self.version))

    def put(self, manifest: bytes) -> None:
        """Replace it."""
        with tempfile.TemporaryDirectory(prefix="erasediff-manifest-") as folder:
            write_atomic(Path(folder) / MANIFEST, manifest)
            self.tracking.log_artifact(self.version.run_id, Path(folder) / MANIFEST, ONNX_ARTIFACTS)


def _is_of(served: ServedModel, model: ModelRecord) -> bool:
    same = all(getattr(served, name) == getattr(model, name) for name in ("dataset", "class_names", "forgotten", "epoch"))
    return same and served.weights_sha256 == model.weights.sha256


def manifests(workdir: Workdir, tracking: Tracking, model_names: Iterable[str]) -> Iterator[Place]:
    """All manifests of a workdir's attempts and of registered models."""
    for attempt in workdir.attempts():
        if (attempt.folder / ONNX_ARTIFACTS / MANIFEST).is_file():
            yield OfRun(attempt)
    for name in model_names:
        for version in tracking.versions(name):
            if has_manifest(tracking, version):
                yield OfVersion(tracking, version)


def has_manifest(tracking: Tracking, version: Any) -> bool:
    """Whether a registered version has an exported graph with its manifest."""
    tagged = _ONNX_TAG in version.tags and tracking.find_run(version.run_id) is not None
    return tagged and tracking.has_artifact(version.run_id, ONNX_ARTIFACTS, MANIFEST)


def sign_manifests(found: Iterable[Place], key: SigningKey) -> int:
    """Sign each manifest that this key did not sign, after all of them were checked; returns how many.

    Raises:
        IntegrityError: a manifest does not say what was recorded of its model.
        Unreachable: the token or the service that holds the key does not sign.
    """
    unsigned = [(place, served) for place in found if (served := _checked(place, key)) is not None]
    for place, served in unsigned:
        place.put(sign(served, SERVED, key))
    return len(unsigned)


def _checked(place: Place, key: SigningKey) -> ServedModel | None:
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
        raise IntegrityError(f"{place.title} does not say what was recorded of its model, so it is not signed: restore it, and run this again.")
    return served


def _content(folder: Path) -> ServedModel:
    """What a manifest says, in an envelope or, as an earlier version of EraseDiff wrote it, alone."""
    try:
        return read_manifest(folder, None)
    except EraseDiffError:
        return ServedModel.read(folder / MANIFEST)
