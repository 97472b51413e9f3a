"""A classifier from a local folder in the detector's place: the same interface, another network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.features.extractor import check_extractor
from erasediff.evaluate.features.opening import DetectorFeatures
from erasediff.evaluate.features.pretrained import load_pretrained, pooled
from erasediff.records.config import DetectorConfig


class FolderClassifier(nn.Module):
    """An image classifier of transformers of which some classes are ours; its other classes are not choices."""

    def __init__(self, model: Any, labels: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self.labels = labels

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B,classes]`` of our classes and the backbone's pooled output ``[B,d]`` for ``pixels [B,3,h,w]``, from one pass."""
        seen: list[Any] = []
        hook = self.model.base_model.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            logits: Tensor = self.model(pixel_values=pixels).logits
        finally:
            hook.remove()
        return logits[:, list(self.labels)], pooled(seen[0])


def folder_detector(config: DetectorConfig, classes: int, images: Tensor) -> Detector:
    """The detector from ``config.path``, after a trial.

    Args:
        config: of kind ``transformers``.
        classes: how many the dataset has; ``config.labels`` names the model's class for each.
        images: a few images to try it on, ``uint8 [N,H,W,C]``.

    Raises:
        BadInput: it cannot be loaded, is no classifier, or its labels do not fit.
    """
    loaded = load_pretrained(Path(str(config.path)))
    _check_labels(config, classes, loaded.model)
    network = FolderClassifier(loaded.model, config.labels).eval()
    detector = Detector(network, loaded.digest, loaded.preprocessing, config.batch_size)
    check_extractor(DetectorFeatures(detector), images, f"the model of detector.path {config.path}")
    return detector


def _check_labels(config: DetectorConfig, classes: int, model: Any) -> None:
    if not type(model).__name__.endswith("ForImageClassification"):
        raise BadInput(f"the model of detector.path {config.path}, a {type(model).__name__}, is no image classifier: hand in one.")
    if len(config.labels) != classes:
        raise BadInput(f"detector.labels names {len(config.labels)} classes and the dataset has {classes}: name the model's class for each of them.")
    if (largest := max(config.labels)) >= model.config.num_labels:
        raise BadInput(
            f"detector.labels names class {largest} and the model of {config.path} has {model.config.num_labels}: correct detector.labels."
        )
