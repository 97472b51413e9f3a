"""The lie: 'the classifier did not see the class', of one that was asked for other classes than it knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.features.preprocessing import read_preprocessing
from erasediff.evaluate.folder_detector import folder_detector
from erasediff.files import sha256_folder
from erasediff.records.config import DetectorConfig
from tests.pretrained import build, write

LABELS = (7, 0, 11)


def images(n: int = 40) -> Tensor:
    return torch.randint(0, 256, (n, 20, 20, 1), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def from_folder(folder: Path, labels: tuple[int, ...] = LABELS, batch_size: int = 64) -> Detector:
    return folder_detector(DetectorConfig(kind="transformers", path=str(folder), labels=labels, batch_size=batch_size), 3, images(2))


@torch.no_grad()
def logits(kind: str, folder: Path) -> Tensor:
    """All 12 logits, from the model in memory that the folder was written from."""
    return build(kind)(pixel_values=read_preprocessing(folder)(images())).logits


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_it_says_what_the_model_says_of_our_classes(tmp_path: Path, kind: str, batch_size: int) -> None:
    detector = from_folder(write(tmp_path, kind), batch_size=batch_size)
    ours = logits(kind, tmp_path)[:, list(LABELS)]
    found, features = detector.look(images())
    assert torch.equal(found, ours.argmax(1))
    assert features.shape == (40, 16)
    for label in range(3):
        assert torch.allclose(detector.probability(images(), label), ours.softmax(1)[:, label], atol=1e-5)
    assert detector.digest == sha256_folder(tmp_path)


def test_the_order_of_the_labels_is_that_of_our_classes(tmp_path: Path) -> None:
    folder = write(tmp_path, "vit")
    found, turned = (from_folder(folder, labels).look(images())[0] for labels in (LABELS, LABELS[1:] + LABELS[:1]))
    assert torch.equal(turned, (found - 1) % 3)
    assert not torch.equal(found, turned), "control"


def test_a_class_that_is_not_ours_is_not_an_answer(tmp_path: Path) -> None:
    folder = write(tmp_path, "vit")
    loved = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    loved["classifier.bias"][5] = 1e6
    save_file(loved, folder / "model.safetensors", {"format": "pt"})
    detector = from_folder(folder)
    assert torch.equal(detector.look(images())[0], logits("vit", folder)[:, list(LABELS)].argmax(1))
    assert torch.stack([detector.probability(images(), label) for label in range(3)]).sum(0) == pytest.approx(np.ones(40), abs=1e-5)


def test_it_is_watched_and_counted_like_any_detector(tmp_path: Path) -> None:
    """On labels that are its own answers it errs nowhere; on others it does, and is set to be more sensitive."""
    detector = from_folder(write(tmp_path, "resnet"))
    found, _ = detector.look(images())
    label = int(found.mode().values)
    watch = detector.watch_for(images(), found, label, 0.9)
    assert (watch.threshold, watch.quality.accuracy, watch.quality.true_positive_rate, watch.quality.false_positive_rate) == (None, 1.0, 1.0, 0.0)
    assert watch.count(images()).detections == int((found == label).sum())
    assert watch.quality.sha256 == detector.digest
    confused = detector.watch_for(images(), (found + 1) % 3, label, 0.9)
    assert confused.threshold is not None, "control"
    assert detector.quality(images(), (found + 1) % 3, label).accuracy == 0.0
    assert len(detector.nearest(images(), torch.arange(40) % 3, 0, [1, 2], 1)) == 1


@pytest.mark.parametrize(
    ("kind", "labels", "named"),
    [
        ("vit", (0, 1), "names 2 classes and the dataset has 3"),
        ("vit", (0, 1, 12), "names class 12"),
        ("dinov2", (0, 1, 2), "is no image classifier"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, kind: str, labels: tuple[int, ...], named: str) -> None:
    with pytest.raises(BadInput, match=rf"^[^\n]*{named}[^\n]*\.$"):
        from_folder(write(tmp_path, kind), labels)
