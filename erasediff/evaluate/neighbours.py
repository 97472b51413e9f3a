"""The second detector: which real images a sample lies nearest to. It has no weights, and fails in other ways than a classifier.

A classifier must name one of its classes, whatever it is shown; neighbours in pixels are few for what looks like nothing real, and
do not see through a shift or a stroke width as a classifier does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from erasediff.evaluate.detectors import SENSITIVITY_MARGIN
from erasediff.models.denoiser import to_unit
from erasediff.records.attacks import Detections
from erasediff.records.measurements import DetectorQuality

NEIGHBOURS = 15
_BATCH = 512


@dataclass(frozen=True)
class Neighbourhood:
    """Real images ``uint8 [N,H,W,C]`` that no denoiser is trained on, with their labels."""

    images: Tensor
    labels: Tensor

    @property
    def digest(self) -> str:
        """SHA-256 of the images and labels: they are all there is to this detector."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()

    @torch.no_grad()
    def share(self, images: Tensor, label: int) -> Tensor:
        """For each of ``uint8 [N,H,W,C]`` the share ``[N]`` of its nearest real images that are of the class."""
        known, own = to_unit(self.images).flatten(1), (self.labels == label).double()
        parts = [torch.cdist(to_unit(rows).flatten(1), known).topk(NEIGHBOURS, largest=False).indices for rows in torch.split(images, _BATCH)]
        return own[torch.cat(parts)].mean(1)

    def watch_for(self, images: Tensor, labels: Tensor, label: int, sensitivity: float) -> NeighbourWatch:
        """Set the detector to a class so that it finds at least a ``sensitivity`` of real images of it.

        The threshold is chosen on every second of the images, none of which is a neighbour; the errors are those on the others.
        """
        shares, positive = self.share(images, label), labels == label
        own = shares[0::2][positive[0::2]]
        threshold = float(own.quantile(1 - min(1.0, sensitivity + SENSITIVITY_MARGIN))) if len(own) else 1.0
        threshold = max(threshold, 1 / NEIGHBOURS)  # an image without a neighbour of the class is none
        found, positive = shares[1::2] >= threshold, positive[1::2]
        quality = DetectorQuality(
            sha256=self.digest,
            accuracy=float((found == positive).double().mean()) if len(found) else 0.0,
            true_positive_rate=float(found[positive].double().mean()) if positive.any() else 0.0,
            false_positive_rate=float(found[~positive].double().mean()) if (~positive).any() else 1.0,
            holdout_positives=int(positive.sum()),
            holdout_negatives=int((~positive).sum()),
            threshold=threshold,
        )
        return NeighbourWatch(self, label, threshold, quality)


@dataclass(frozen=True)
class NeighbourWatch:
    """The neighbourhood set to one class."""

    neighbourhood: Neighbourhood
    label: int
    threshold: float
    quality: DetectorQuality

    def count(self, images: Tensor) -> Detections:
        """How many of ``uint8 [N,H,W,C]`` have enough neighbours of the class, beside how many real images of other classes have."""
        others = self.quality.holdout_negatives
        return Detections(
            n=len(images),
            detections=int((self.neighbourhood.share(images, self.label) >= self.threshold).sum()),
            reference_n=others,
            reference_detections=round(self.quality.false_positive_rate * others),
        )
