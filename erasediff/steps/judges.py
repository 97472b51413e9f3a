"""The detectors of an attempt: made before the erasure, pinned by their digests, and only those may judge."""

from __future__ import annotations

import hashlib

from erasediff.errors import IntegrityError
from erasediff.evaluate.detectors import Detector, stored_detector
from erasediff.evaluate.measure import RealImages
from erasediff.evaluate.neighbours import Neighbourhood
from erasediff.records.base import canonical_json
from erasediff.records.nouns import BaseRecord, Judges
from erasediff.records.workdir import Run


def appoint(run: Run, real: RealImages) -> Judges:
    """Make the detectors that will judge this attempt, or find them, and say what they are."""
    return Judges(classifier=_classifier(run, real).digest, neighbours=_neighbourhood(real).digest)


def classifier(run: Run, real: RealImages) -> Detector:
    """The classifier that was appointed.

    Raises:
        IntegrityError: the one that is there is another.
    """
    found = _classifier(run, real)
    _check(run, found.digest, run.need(BaseRecord, "train-base").judges, "classifier")
    return found


def neighbourhood(run: Run, real: RealImages) -> Neighbourhood:
    """The real images that were appointed as neighbours.

    Raises:
        IntegrityError: those that are there are others.
    """
    found = _neighbourhood(real)
    _check(run, found.digest, run.need(BaseRecord, "train-base").judges, "neighbours")
    return found


def _classifier(run: Run, real: RealImages) -> Detector:
    """The classifier for this dataset and config, trained on held-out images only."""
    config = run.config()
    made_from = {"dataset": run.plan().made_from["dataset"], "detector": config.detector.digest(), "split": config.dataset.digest()}
    name = hashlib.sha256(canonical_json(made_from)).hexdigest()[:16]
    path = run.workdir.detectors / f"{name}.safetensors"
    return stored_detector(path, real.holdout, real.holdout_labels, real.classes, config.detector)


def _neighbourhood(real: RealImages) -> Neighbourhood:
    return Neighbourhood(real.holdout, real.holdout_labels)


def _check(run: Run, digest: str, judges: Judges | None, which: str) -> None:
    if judges is None or getattr(judges, which) != digest:
        raise IntegrityError(
            f"the {which} that would judge run {run.name} is not the one that was appointed before the erasure: "
            "put it back, or run the command under another --run."
        )
