"""The lie: 'two detectors', of which one only repeats the other or sees nothing."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from erasediff.evaluate.neighbours import NEIGHBOURS, Neighbourhood


@pytest.fixture(scope="module")
def halves():
    """Every third digit is a neighbour, the others are looked at."""
    data = load_digits()
    images, labels = torch.from_numpy((data.images * 255 / 16).round().astype("uint8")).unsqueeze(3), torch.from_numpy(data.target)
    third = torch.arange(len(images)) % 3 == 0
    return Neighbourhood(images[third], labels[third]), images[~third], labels[~third]


def test_the_share_is_that_of_the_nearest(halves) -> None:
    neighbourhood, images, _ = halves
    known = neighbourhood.images.flatten(1).double().numpy()
    wanted = KNeighborsClassifier(NEIGHBOURS).fit(known, neighbourhood.labels.numpy()).predict_proba(images[:200].flatten(1).double().numpy())
    for label in (0, 8):
        assert neighbourhood.share(images[:200], label).numpy() == pytest.approx(wanted[:, label], abs=1.01 / NEIGHBOURS)
        assert (neighbourhood.share(images[:200], label).numpy() - wanted[:, label]).mean() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("label", range(10))
def test_it_knows_every_digit_and_counts_it(halves, label: int) -> None:
    neighbourhood, images, labels = halves
    watch = neighbourhood.watch_for(images, labels, label, 0.9)
    assert watch.quality.true_positive_rate >= 0.75
    assert watch.quality.false_positive_rate < 0.05
    own, others = watch.count(images[labels == label]), watch.count(images[labels != label])
    assert own.detections / own.n > 0.75
    assert others.detections / others.n < 0.05
    assert own.reference_n == watch.quality.holdout_negatives


def test_what_looks_like_nothing_real_is_not_called_any_class(halves) -> None:
    """Noise has neighbours too, but few of them are of any one class. A classifier would have to name one."""
    neighbourhood, images, labels = halves
    noise = torch.randint(0, 256, (300, 8, 8, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = [neighbourhood.watch_for(images, labels, c, 0.9).count(noise).detections for c in range(10)]
    assert sum(found) < 300


def test_no_image_of_the_class_means_no_threshold_that_lets_everything_through(halves) -> None:
    neighbourhood, images, labels = halves
    watch = neighbourhood.watch_for(images[labels != 3], labels[labels != 3], 3, 0.9)
    assert (watch.quality.holdout_positives, watch.quality.true_positive_rate) == (0, 0.0)
    assert watch.count(images[labels != 3]).detections < 20


def test_its_digest_is_that_of_its_images(halves) -> None:
    neighbourhood, *_ = halves
    other = Neighbourhood(neighbourhood.images.clone(), neighbourhood.labels.clone())
    assert other.digest == neighbourhood.digest
    other.images[0, 0, 0, 0] += 1
    assert other.digest != neighbourhood.digest
