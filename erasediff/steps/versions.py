"""Registered versions as their tags describe them, and their exported graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erasediff.errors import BadInput, IntegrityError
from erasediff.records.base import Sha256, Strict
from erasediff.records.core import Verdict
from erasediff.records.serving import ServingRules
from erasediff.rollout.store import Exported
from erasediff.serve.admission import admit
from erasediff.tracking import EPOCH_TAG, Tracking


class Version(Strict):
    """A registered version, as its tags describe it."""

    number: str
    epoch: int
    verdict: Verdict
    weights_sha256: Sha256
    onnx_sha256: Sha256
    verdict_digest: Sha256
    forget_set_version: str


def version_of(entry: Any) -> Version | None:
    """A version from its tags; ``None`` for a base model, and for a version that another tool registered."""
    tags: dict[str, str] = entry.tags
    try:
        return Version(
            number=str(entry.version),
            epoch=epoch_of(entry),
            verdict=Verdict(tags["erasediff.verdict"]),
            weights_sha256=tags["erasediff.weights_sha256"],
            onnx_sha256=tags["erasediff.onnx_sha256"],
            verdict_digest=tags["erasediff.record.verdict"],
            forget_set_version=tags["erasediff.forget_set_version"],
        )
    except (KeyError, ValueError, BadInput):
        return None


def epoch_of(entry: Any) -> int:
    """The erasure epoch of a version.

    Raises:
        BadInput: its tag cannot be read.
    """
    epoch = entry.tags.get(EPOCH_TAG, "")
    if not epoch.isascii() or not epoch.isdigit():
        raise BadInput(f"version {entry.version} has no tag {EPOCH_TAG}: an earlier version of EraseDiff registered it, run `erasediff migrate`.")
    return int(epoch)


def fetch_exported(tracking: Tracking, name: str, target: Version, folder: Path, rules: ServingRules) -> Exported:
    """Fetch the exported graph of a version and check it against its tags and the serving rules."""
    entry = tracking.resolve(f"models:/{name}/{target.number}")
    exported = Exported.read(tracking.download(tracking.artifacts_of(entry, "onnx"), folder))
    admit(exported.folder, rules, None)  # the servers have the issuer's public key
    if (exported.model.onnx.sha256, exported.model.epoch) != (target.onnx_sha256, target.epoch):
        raise IntegrityError(f"the graph of version {target.number} does not match its tags: check the version in MLflow.")
    return exported
