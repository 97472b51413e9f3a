"""What was found when the model that serves was asked again for what it has forgotten."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from erasediff.records.attacks import Detections
from erasediff.records.base import Record, Sha256, Strict
from erasediff.records.measurements import DetectorQuality
from erasediff.records.nouns import Check, Verdict


class Recalled(Strict):
    """How often the graph that serves made a forgotten label, and how good the detector is that says so."""

    label: int = Field(ge=0)
    found: Detections
    detector: DetectorQuality


class RegateRecord(Record):
    """A verdict on the champion as it serves, without an erasure. ``evaluation_key`` lets anyone draw the images again."""

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
