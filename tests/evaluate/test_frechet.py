"""The lie: 'retained images look as before', read off two distances that cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from erasediff.evaluate.statistics import bias_corrected_upper, frechet, frechet_difference, frechet_distance
from erasediff.evaluate.statistics.frechet import _Moments


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def exact_gaussian(n: int, mean: np.ndarray, spread: np.ndarray, seed: int) -> np.ndarray:
    """A sample whose mean and covariance are exactly ``mean`` and ``diag(spread²)``."""
    raw = rng(seed).normal(size=(n, len(mean)))
    raw -= raw.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(raw, rowvar=False)), raw.T).T
    return white * spread + mean


@pytest.mark.parametrize("d", [2, 5, 20])
def test_the_distance_is_that_of_the_definition(d: int) -> None:
    """Against scipy's general matrix square root, which knows nothing of symmetry."""
    left, right = (rng(seed).normal(size=(200, d)) @ rng(seed + 9).normal(size=(d, d)) + seed for seed in (1, 2))
    one, two = np.cov(left, rowvar=False), np.cov(right, rowvar=False)
    wanted = ((left.mean(0) - right.mean(0)) ** 2).sum() + np.trace(one + two - 2 * np.real(sqrtm(one @ two)))
    assert frechet_distance(left, right) == pytest.approx(wanted, rel=1e-8)
    assert frechet_distance(right, left) == pytest.approx(wanted, rel=1e-8)


def test_the_distance_of_diagonal_gaussians_is_known_in_closed_form() -> None:
    """‖μ_1-μ_2‖² + Σ (σ_1-σ_2)²."""
    mean, spread = np.array([[0.0, 1.0, -2.0], [1.0, 1.0, 0.5]]), np.array([[1.0, 0.5, 2.0], [1.0, 3.0, 0.1]])
    samples = [exact_gaussian(100, mean[i], spread[i], seed=i) for i in (0, 1)]
    assert frechet_distance(*samples) == pytest.approx(((mean[0] - mean[1]) ** 2).sum() + ((spread[0] - spread[1]) ** 2).sum(), rel=1e-9)
    assert frechet_distance(samples[0], samples[0]) == pytest.approx(0.0, abs=1e-8)


def test_a_collapsed_feature_gives_a_number_and_not_a_complex_one() -> None:
    """A destroyed model's samples have a singular covariance: the distance must see it, not fail on it."""
    real = rng().normal(size=(100, 4))
    collapsed = np.full((100, 4), 2.0)
    assert frechet_distance(collapsed, real) == pytest.approx(((2 - real.mean(0)) ** 2).sum() + np.trace(np.cov(real, rowvar=False)))


def strata(n: int, groups: int) -> np.ndarray:
    return np.repeat(np.arange(groups), n // groups)


@pytest.mark.parametrize(("base", "candidate", "labels"), [(90, 100, 100), (100, 90, 100), (100, 100, 90)])
def test_unequal_numbers_are_refused(base: int, candidate: int, labels: int) -> None:
    """The distance falls with n, so a larger arm would look better."""
    features = rng().normal(size=(200, 3))
    with pytest.raises(ValueError, match="compared at equal n"):
        frechet_difference(features[:base], features[:candidate], strata(labels, 1), features, 3, rng())
    small = np.mean([frechet_distance(rng(s).normal(size=(20, 3)), features) for s in range(20)])
    large = np.mean([frechet_distance(rng(s).normal(size=(200, 3)), features) for s in range(20)])
    assert small > 2 * large, "control: the bias is there"


def test_the_bootstrap_is_a_function_of_its_generator() -> None:
    base, candidate, reference = rng(1).normal(size=(60, 3)), 1.2 * rng(2).normal(size=(60, 3)), rng(3).normal(size=(200, 3))
    first, again, other = (frechet_difference(base, candidate, strata(60, 3), reference, 20, rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.fd_candidate == frechet_distance(reference, candidate)  # in this order: the other rounds otherwise
    assert first.fd_base == frechet_distance(reference, base)


def test_resamples_keep_the_number_of_each_label() -> None:
    """With one row a label there is nothing to draw: only a bootstrap that ignores the design would vary."""
    features = rng().normal(size=(30, 3))
    within = frechet_difference(features, features + 1, np.arange(30), features, 10, rng())
    assert within.bootstrap_sd == pytest.approx(0.0, abs=1e-12)
    assert frechet_difference(features, 2 * features + 1, strata(30, 1), features, 10, rng()).bootstrap_sd > 0, "control"


def test_one_draw_serves_both_arms() -> None:
    """Row i of both arms has the same seed: an unchanged model has a difference of exactly 0, without any spread."""
    features = rng().normal(size=(50, 3))
    same = frechet_difference(features, features.copy(), strata(50, 5), rng(1).normal(size=(80, 3)), 10, rng())
    assert (same.fd_candidate - same.fd_base, same.bootstrap_mean, same.bootstrap_sd) == (0.0, 0.0, 0.0)


def test_the_bias_corrected_bound_covers_and_the_percentile_does_not() -> None:
    """50 experiments on a candidate that has lost variety, true change +1.83: 95 % must be covered, 44 of 50 is three sigma below.

    A percentile interval sits around mean(D*), which is biased once more than D is: it calls the collapse smaller than it is.
    """
    d, n, trials, generator = 12, 100, 50, rng()
    reference = exact_gaussian(500, np.zeros(d), np.ones(d), seed=5)
    truth = d * ((0.5 - 1) ** 2 - (1.3 - 1) ** 2)
    corrected = percentile = 0
    for _ in range(trials):
        base, candidate = 1.3 * generator.normal(size=(n, d)), 0.5 * generator.normal(size=(n, d))
        found = frechet_difference(base, candidate, strata(n, 1), reference, 100, generator)
        change = found.fd_candidate - found.fd_base
        corrected += bias_corrected_upper(change, found.bootstrap_mean, found.bootstrap_sd, 0.05) >= truth
        percentile += found.bootstrap_mean + 1.645 * found.bootstrap_sd >= truth
    assert corrected >= 44
    assert percentile <= 10, "control"


@pytest.mark.parametrize("rows", [1, 7, 100, 5000])
def test_the_parts_that_a_table_is_read_in_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from 0, where one pass over the squares would lose all digits; numpy's own covariance of the whole is the judge."""
    features = 1e6 + rng().normal(size=(100, 6)) @ rng(1).normal(size=(6, 6))
    monkeypatch.setattr(frechet, "_ROWS", rows)
    found = _Moments.of(features)
    assert found.mean == pytest.approx(features.mean(0), rel=1e-14)
    assert found.covariance == pytest.approx(np.cov(features, rowvar=False), rel=1e-8, abs=1e-8)
    one_pass = (features.T @ features - len(features) * np.outer(features.mean(0), features.mean(0))) / 99
    assert abs(one_pass - np.cov(features, rowvar=False)).max() > 1e-4, "control"


def test_a_table_of_one_part_has_the_moments_of_numpy_to_the_last_bit() -> None:
    """So that bounds that were written down before do not move."""
    features = rng().normal(size=(2250, 16))
    found = _Moments.of(features)
    assert np.array_equal(found.mean, features.mean(0))
    assert np.array_equal(found.covariance, np.cov(features, rowvar=False))
