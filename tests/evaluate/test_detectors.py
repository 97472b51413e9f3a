"""The lie: 'the detector did not see the class', from a detector that would not know it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from erasediff.data.split import partition
from erasediff.errors import IntegrityError
from erasediff.evaluate.detectors import Detector, stored_detector, train_detector
from erasediff.records.config import DetectorConfig

SHORT = DetectorConfig(steps=250)


@dataclass
class Digits:
    """Real digits: a part to train on and a part to measure on."""

    images: Tensor
    labels: Tensor
    train: Tensor
    rest: Tensor


@pytest.fixture(scope="module")
def digits(digit_bytes: tuple[Tensor, Tensor]) -> Digits:
    images, labels = digit_bytes
    parts = partition(labels.numpy(), 1 / 3, 0)
    return Digits(images, labels, torch.from_numpy(parts.train), torch.from_numpy(np.setdiff1d(np.arange(len(labels)), parts.train)))


@pytest.fixture(scope="module")
def trained(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Detector]:
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    return path, stored_detector(path, digits.images[digits.train], digits.labels[digits.train], 10, SHORT)


def test_it_knows_real_digits_it_was_not_trained_on(trained: tuple[Path, Detector], digits: Digits) -> None:
    images, labels = digits.images[digits.rest], digits.labels[digits.rest]
    quality = trained[1].quality(images, labels, 8)
    assert quality.accuracy >= 0.97
    assert quality.true_positive_rate >= 0.9
    assert quality.false_positive_rate <= 0.02
    assert quality.holdout_positives == int((labels == 8).sum())


def test_labels_alone_are_those_of_a_look(trained: tuple[Path, Detector], digits: Digits) -> None:
    assert torch.equal(trained[1].labels(digits.images), trained[1].look(digits.images)[0])


def test_its_rates_are_what_a_count_says(trained: tuple[Path, Detector], digits: Digits) -> None:
    """Against rates counted by hand on relabelled images, where both kinds of error are known."""
    images, found = digits.images[digits.rest], trained[1].look(digits.images[digits.rest])[0]
    labels = found.clone()
    eights, others = (found == 8).nonzero().squeeze(1), (found != 8).nonzero().squeeze(1)
    labels[eights[:10]] = 3  # ten false positives
    labels[others[:4]] = 8  # four misses
    quality = trained[1].quality(images, labels, 8)
    assert quality.holdout_positives == len(eights) - 6
    assert quality.true_positive_rate == pytest.approx((len(eights) - 10) / (len(eights) - 6))
    assert quality.false_positive_rate == pytest.approx(10 / (len(others) + 6))
    assert quality.accuracy == pytest.approx(1 - 14 / len(found))


def test_a_class_without_real_images_gives_no_credit(trained: tuple[Path, Detector], digits: Digits) -> None:
    quality = trained[1].quality(digits.images[:20], torch.zeros(20, dtype=torch.int64), 8)
    assert (quality.true_positive_rate, quality.holdout_positives) == (0.0, 0)


def test_a_detector_that_misses_too_many_is_set_to_be_more_sensitive(digits: Digits) -> None:
    """Barely trained, it misses the 8s; with doubtful images counted it finds nine in ten, and says what that costs."""
    weak = Detector(train_detector(digits.images[digits.train], digits.labels[digits.train], 10, DetectorConfig(steps=60)), "0" * 64)
    images, labels = digits.images[digits.rest], digits.labels[digits.rest]
    plain = weak.quality(images, labels, 8)
    assert plain.true_positive_rate < 0.9
    watch = weak.watch_for(images, labels, 8, 0.9)
    assert watch.threshold is not None
    assert watch.quality.true_positive_rate >= 0.85, "chosen on other images"
    assert watch.quality.false_positive_rate > plain.false_positive_rate
    judged = images[1::2], labels[1::2]
    counted = watch.count(judged[0][judged[1] != 8])
    assert (counted.reference_detections, counted.reference_n) == (counted.detections, counted.n), "the reference is what real others are called"
    assert watch.count(judged[0][judged[1] == 8]).detections == round(watch.quality.true_positive_rate * watch.quality.holdout_positives)


def test_a_detector_that_knows_the_class_is_left_alone(trained: tuple[Path, Detector], digits: Digits) -> None:
    images, labels = digits.images[digits.rest], digits.labels[digits.rest]
    watch = trained[1].watch_for(images, labels, 8, 0.9)
    assert watch.threshold is None
    assert watch.count(images).detections == int((trained[1].look(images)[0] == 8).sum())


def test_control_trained_on_permuted_labels_it_knows_nothing(digits: Digits) -> None:
    """So the accuracy above comes from the images, and the measuring part holds nothing of the training part."""
    shuffled = digits.labels[digits.train][torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(0))]
    network = train_detector(digits.images[digits.train], shuffled, 10, DetectorConfig(steps=60))
    quality = Detector(network, "0" * 64).quality(digits.images[digits.rest], digits.labels[digits.rest], 8)
    assert quality.accuracy < 0.3


def same(left: Detector, right: Detector) -> bool:
    pairs = zip(left.network.state_dict().values(), right.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_detector_is_loaded_and_not_trained_again(trained: tuple[Path, Detector], digits: Digits) -> None:
    path, detector = trained
    before = path.stat().st_mtime_ns
    loaded = stored_detector(path, digits.images[:1], digits.labels[:1], 10, DetectorConfig(steps=1))
    assert path.stat().st_mtime_ns == before
    assert loaded.digest == detector.digest
    assert same(loaded, detector)
    images = digits.images[digits.rest]
    assert np.array_equal(loaded.look(images)[1], detector.look(images)[1])


def test_a_detector_is_a_function_of_data_and_config(digits: Digits, tmp_path: Path) -> None:
    """The global generator neither matters nor moves while it trains."""
    images, labels = digits.images[digits.train], digits.labels[digits.train]

    def make(name: str, seed: int = 7) -> Detector:
        return stored_detector(tmp_path / name, images, labels, 10, DetectorConfig(steps=5, seed=seed))

    first = make("a")
    torch.rand(5)
    before = torch.get_rng_state()
    train_detector(images, labels, 10, DetectorConfig(steps=1))
    assert torch.equal(torch.get_rng_state(), before)
    second = make("b")
    assert first.digest == second.digest
    assert same(first, second)
    assert make("c", seed=8).digest != first.digest, "control"


@pytest.mark.parametrize("classes", [3, 10])
def test_a_damaged_or_foreign_detector_is_refused(trained: tuple[Path, Detector], digits: Digits, tmp_path: Path, classes: int) -> None:
    """Cut short, or whole but of a dataset with other classes; it is never silently trained again."""
    path, data = tmp_path / "detector.safetensors", trained[0].read_bytes()
    path.write_bytes(data if classes == 3 else data[:-10])
    with pytest.raises(IntegrityError, match=r"^the detector [^\n]* is damaged or of another dataset: remove it[^\n]*\.$"):
        stored_detector(path, digits.images, digits.labels, classes, SHORT)


def test_the_nearest_classes_are_nearest_in_features(trained: tuple[Path, Detector], digits: Digits) -> None:
    """An image set of an 8 that is really a 3 makes 3 the nearest; forgotten classes are not asked about."""
    labels = digits.labels.clone()
    threes = (labels == 3).nonzero().squeeze(1)
    labels[threes[::2]] = 8
    labels[digits.labels == 8] = 0
    assert trained[1].nearest(digits.images, labels, 8, [1, 2, 3, 4], 1) == (3,)
    assert 3 not in trained[1].nearest(digits.images, labels, 8, [1, 2, 4], 2)
