"""The extractor that a config names: the features of the detector that classifies (the default), or those of a model from a local path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.features.extractor import FeatureExtractor, check_extractor
from erasediff.evaluate.features.inception import load_inception
from erasediff.evaluate.features.pretrained import PretrainedFeatures, load_pretrained
from erasediff.evaluate.statistics import Features
from erasediff.records.config import FeaturesConfig


@dataclass(frozen=True)
class DetectorFeatures:
    """What :meth:`Detector.look` gives beside the labels."""

    detector: Detector

    @property
    def digest(self) -> str:
        """That of the detector."""
        return self.detector.digest

    def features(self, images: Tensor) -> Features:
        """Features ``float64 [N,d]`` of ``uint8 [N,H,W,C]``, in the detector's own batches."""
        return self.detector.look(images)[1]


def open_extractor(config: FeaturesConfig, detector: Detector, images: Tensor) -> FeatureExtractor:
    """The detector's features, or those of a model from a local path after a trial.

    Args:
        config: which.
        detector: the one that classifies.
        images: a few images to try it on, ``uint8 [N,H,W,C]``.

    Raises:
        BadInput: it cannot be loaded, or does not pass the trial.
    """
    return DetectorFeatures(detector) if config.kind == "detector" else open_from_path(config, images)


def open_from_path(config: FeaturesConfig, images: Tensor) -> FeatureExtractor:
    """An extractor from ``config.path``; see :func:`open_extractor`."""
    path = Path(str(config.path))
    loaded = (
        PretrainedFeatures(load_pretrained(path), config.batch_size) if config.kind == "transformers" else load_inception(path, config.batch_size)
    )
    return check_extractor(loaded, images, f"the model of features.path {path}")
