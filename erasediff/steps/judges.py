"""The judges of an attempt: detectors and feature extractor. They are pinned by digest before the erasure, and only they may judge."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from erasediff.attempts.attempt import Attempt
from erasediff.errors import IntegrityError
from erasediff.evaluate.detectors import Detector, stored_detector
from erasediff.evaluate.features.extractor import FeatureExtractor
from erasediff.evaluate.features.opening import open_extractor, open_from_path
from erasediff.evaluate.folder_detector import folder_detector
from erasediff.evaluate.neighbours import Neighbourhood
from erasediff.evaluate.real import RealImages
from erasediff.records.config import DetectorConfig, RunConfig
from erasediff.records.core import BaseRecord, Judges

TRIED = 2
"""Images that a model from a folder is tried on before it is pinned."""
_CALLED = {"features": "feature extractor", "neighbours": "set of neighbours"}


def pin_judges(attempt: Attempt, real: RealImages) -> Judges:
    """Make or load the detectors and the extractor that will judge this attempt, and return their digests."""
    detector = _classifier(attempt, real)
    extractor = open_extractor(attempt.config().features, detector, real.holdout[:TRIED])
    return Judges(classifier=detector.digest, neighbours=_neighbourhood(real).digest, features=extractor.digest)


def check_paths(config: RunConfig, classes: int, images: Tensor) -> None:
    """Try the config's local models on a few images of the dataset, before the run starts.

    Raises:
        BadInput: one cannot be loaded, or fails its trial.
    """
    if config.detector.kind == "transformers":
        folder_detector(config.detector, classes, images)
    if config.features.kind != "detector":
        open_from_path(config.features, images)


def classifier_of(config: DetectorConfig, path: Path, real: RealImages) -> Detector:
    """The classifier that a configuration names: from a local folder, or trained on held-out images only and kept under ``path``."""
    if config.kind == "transformers":
        return folder_detector(config, real.classes, real.holdout[:TRIED])
    return stored_detector(path, real.holdout, real.holdout_labels, real.classes, config)


def classifier(attempt: Attempt, real: RealImages) -> Detector:
    """The pinned classifier.

    Raises:
        IntegrityError: the present one is another.
    """
    found = _classifier(attempt, real)
    _check(attempt, found.digest, attempt.need(BaseRecord).judges, "classifier")
    return found


def neighbourhood(attempt: Attempt, real: RealImages) -> Neighbourhood:
    """The pinned real images that serve as neighbours.

    Raises:
        IntegrityError: the present ones are others.
    """
    found = _neighbourhood(real)
    _check(attempt, found.digest, attempt.need(BaseRecord).judges, "neighbours")
    return found


def extractor(attempt: Attempt, real: RealImages, detector: Detector) -> FeatureExtractor:
    """The pinned extractor.

    Raises:
        IntegrityError: the present one is another.
    """
    found = open_extractor(attempt.config().features, detector, real.holdout[:TRIED])
    _check(attempt, found.digest, attempt.need(BaseRecord).judges, "features")
    return found


def _classifier(attempt: Attempt, real: RealImages) -> Detector:
    return classifier_of(attempt.config().detector, attempt.detector(), real)


def _neighbourhood(real: RealImages) -> Neighbourhood:
    return Neighbourhood(real.holdout, real.holdout_labels)


def _check(attempt: Attempt, digest: str, judges: Judges | None, which: str) -> None:
    if judges is None or getattr(judges, which) != digest:
        raise IntegrityError(
            f"the {_CALLED.get(which, which)} of run {attempt.name} is not the one that was pinned before the erasure: "
            "restore it, or use another --run."
        )
