"""The lie: 'retained images look as before', from a kernel distance that is biased, or whose interval is too short."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics.pairwise import polynomial_kernel

from erasediff.evaluate.statistics import KernelDifference, kernel, kernel_difference, kernel_distance, mean_upper


def normal(seed: int, n: int, d: int = 4, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, d))


def by_definition(left: np.ndarray, right: np.ndarray) -> float:
    """Sums over pairs of different rows, with scikit-learn's kernel."""
    within = [polynomial_kernel(x, degree=3)[~np.eye(len(x), dtype=bool)].mean() for x in (left, right)]
    return float(sum(within) - 2 * polynomial_kernel(left, right, degree=3).mean())


@pytest.mark.parametrize(("n", "m", "d"), [(20, 30, 3), (2, 2, 1), (50, 10, 16)])
def test_the_distance_is_that_of_the_definition(n: int, m: int, d: int) -> None:
    left, right = normal(1, n, d), normal(2, m, d) + 0.3
    assert kernel_distance(left, right) == pytest.approx(by_definition(left, right), rel=1e-9, abs=1e-12)


def test_it_has_no_bias_where_the_distributions_agree() -> None:
    """The control is the mean with the diagonal in it, which is far above 0 at this n."""
    pairs = [(normal(s, 20), normal(s + 1000, 20)) for s in range(400)]
    found = np.array([kernel_distance(*pair) for pair in pairs])
    assert abs(found.mean()) <= 4 * found.std(ddof=1) / math.sqrt(len(found))
    biased = [
        polynomial_kernel(x, degree=3).mean() + polynomial_kernel(y, degree=3).mean() - 2 * polynomial_kernel(x, y, degree=3).mean() for x, y in pairs
    ]
    assert np.mean(biased) > 10 * found.std(ddof=1) / math.sqrt(len(found))


def upper(found: KernelDifference) -> float:
    return mean_upper(found.difference, found.block_sd, found.blocks, 0.05)


def strata(n: int, groups: int = 5) -> np.ndarray:
    return np.arange(n) % groups


def test_an_unchanged_model_has_no_difference() -> None:
    features = normal(0, 200)
    found = kernel_difference(features, features.copy(), strata(200), normal(1, 300), 20, np.random.default_rng(0))
    assert (found.difference, found.block_sd, upper(found)) == (0.0, 0.0, 0.0)


def test_a_changed_model_has_one_and_its_bound_is_students() -> None:
    base, reference = normal(0, 400), normal(1, 400)
    found = kernel_difference(base, 1.5 * base, strata(400), reference, 20, np.random.default_rng(0))
    assert found.difference > found.block_sd / math.sqrt(20) > 0
    assert upper(found) == pytest.approx(found.difference + t.ppf(0.95, 19) * found.block_sd / math.sqrt(20))


def test_blocks_have_as_many_rows_of_each_label() -> None:
    """Features that differ by label alone: blocks that mixed labels at random would differ from one another."""
    labels = strata(200)
    features = np.eye(5)[labels] * 3
    reference = np.zeros((200, 5))
    assert kernel_difference(features, 2 * features, labels, reference, 20, np.random.default_rng(0)).block_sd == pytest.approx(0.0, abs=1e-9)
    mixed = kernel_difference(features, 2 * features, np.zeros(200, dtype=np.int64), reference, 20, np.random.default_rng(0))
    assert mixed.block_sd > 0.1, "control"


@pytest.mark.parametrize(
    ("base", "candidate", "reference", "blocks"), [(90, 100, 100, 20), (100, 100, 30, 20), (30, 30, 100, 20), (100, 100, 100, 1)]
)
def test_what_does_not_make_blocks_is_refused(base: int, candidate: int, reference: int, blocks: int) -> None:
    with pytest.raises(ValueError, match=r"row by row|do not make"):
        kernel_difference(normal(0, base), normal(1, candidate), strata(100), normal(2, reference), blocks, np.random.default_rng(0))


def test_the_bound_keeps_its_level() -> None:
    """200 experiments on independent arms of one distribution, where the true difference is 0: 90.4 % is three sigma below 95."""
    covered = 0
    for trial in range(200):
        base, candidate, reference = (normal(3 * trial + k, 200) for k in range(3))
        covered += upper(kernel_difference(base, candidate, strata(200), reference, 20, np.random.default_rng(trial))) >= 0
    assert covered >= 0.904 * 200
    assert covered < 200, "control: a bound that is never below the truth would be no bound of level 95 %"


@pytest.mark.parametrize("tile", [1, 7, 50])
def test_the_tiles_that_the_pairs_are_taken_in_change_nothing(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = np.random.default_rng(0).normal(size=(50, 4)), 1.3 * np.random.default_rng(1).normal(size=(40, 4))
    whole = kernel_distance(left, right)
    monkeypatch.setattr(kernel, "_TILE", tile)
    assert kernel_distance(left, right) == pytest.approx(whole, abs=1e-12)
