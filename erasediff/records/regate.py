"""The record of a gate that was re-run on the deployed model."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from erasediff.records.attacks import Detections
from erasediff.records.base import Record, Sha256, Strict
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import DetectorQuality
from erasediff.records.names import ClassName


class Recalled(Strict):
    """The detections of a forgotten class on the deployed graph, and the detector's quality; ``label`` is its row."""

    label: int = Field(ge=0)
    name: ClassName
    found: Detections
    detector: DetectorQuality


class RegateRecord(Record):
    """A verdict on the deployed champion. ``evaluation_key`` lets anyone draw the images again."""

    name: str
    version: str
    weights_sha256: Sha256
    onnx_sha256: Sha256
    policy_digest: Sha256
    evaluation_key: Sha256
    at: AwareDatetime
    recalled: tuple[Recalled, ...]
    retained: Detections
    verdict: Verdict
    checks: tuple[Check, ...]
