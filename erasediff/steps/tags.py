"""The tags of a registered version."""

from __future__ import annotations

from erasediff.records.core import ModelRecord

FORGOTTEN_TAG, DRIFT_TAG = "erasediff.forgotten", "erasediff.drift"


def model_tags(record: ModelRecord) -> dict[str, str]:
    """The tags that describe a model."""
    forgotten = {FORGOTTEN_TAG: ",".join(map(str, record.forgotten))} if record.forgotten else {}
    return forgotten | {
        "erasediff.model": record.canonical().decode(),
        "erasediff.weights_sha256": record.weights.sha256,
        "erasediff.folder_sha256": record.folder_sha256,
    }
