"""The default: the features of the detector that classifies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.statistics import Features


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
