"""The lies: 'at most 2 %, at 95 % confidence' and 'no worse than before', from a bound that does not hold its level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from erasediff.evaluate.statistics import binomial_lower, binomial_upper, difference_lower, difference_upper

COUNTS = [(0, 1), (1, 1), (0, 1000), (12, 1000), (13, 1000), (500, 1000), (999, 1000), (1000, 1000), (3, 77)]


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_binomial_bounds_are_those_of_scipy(k: int, n: int, alpha: float) -> None:
    upper = binomtest(k, n, alternative="less").proportion_ci(1 - alpha, "exact").high
    lower = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
    assert binomial_upper(k, n, alpha) == pytest.approx(upper, abs=1e-12)
    assert binomial_lower(k, n, alpha) == pytest.approx(lower, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "most", "limit"),
    [(500, 16, 0.05), (500, 4, 0.02), (1000, 38, 0.05), (1000, 12, 0.02), (1000, 4, 0.01), (2000, 83, 0.05), (2000, 29, 0.02), (2000, 12, 0.01)],
)
def test_the_table_of_most_detections(n: int, most: int, limit: float) -> None:
    """facts/gates-and-evidence.md, 2; one detection more does not pass, which is the control."""
    assert binomial_upper(most, n, 0.05) <= limit < binomial_upper(most + 1, n, 0.05)


@pytest.mark.parametrize(("k", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_counts_that_are_none_have_no_bound(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="are not counts"):
        binomial_upper(k, n, 0.05)


def score_bound(k: int, n: int, z: float, side: int) -> float:
    """Where the score test |p̂ - p| = z √(p(1-p)/n) turns: Wilson's bound, found as a root and not by its formula."""
    rate = k / n
    edge = 1.0 if side > 0 else 0.0
    if rate == edge:
        return edge
    return float(brentq(lambda p: side * (p - rate) - z * math.sqrt(p * (1 - p) / n), rate + side * 1e-12, edge, xtol=1e-14))


@pytest.mark.parametrize(
    ("x", "m", "y", "n"), [(56, 70, 48, 80), (9, 10, 3, 10), (246, 250, 249, 250), (250, 250, 250, 250), (0, 30, 30, 30), (2200, 2250, 2230, 2250)]
)
@pytest.mark.parametrize("alpha", [0.025, 0.05])
def test_the_difference_bound_is_newcombes(x: int, m: int, y: int, n: int, alpha: float) -> None:
    z = float(norm.ppf(1 - alpha))
    wanted = x / m - y / n - math.hypot(x / m - score_bound(x, m, z, -1), score_bound(y, n, z, +1) - y / n)
    assert difference_lower(x, m, y, n, alpha) == pytest.approx(wanted, abs=1e-9)


def test_the_published_example_of_newcombe() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80 has the 95 % interval 0.0524 to 0.3339."""
    assert difference_lower(56, 70, 48, 80, 0.025) == pytest.approx(0.0524, abs=5e-5)
    assert difference_upper(56, 70, 48, 80, 0.025) == pytest.approx(0.3339, abs=5e-5)


def coverage(bound, p: float, q: float, n: int, trials: int = 2000) -> float:
    rng = np.random.default_rng(0)
    pairs = zip(rng.binomial(n, p, trials), rng.binomial(n, q, trials), strict=True)
    return float(np.mean([bound(int(x), n, int(y), n, 0.05) <= p - q + 1e-12 for x, y in pairs]))


def wald(x: int, m: int, y: int, n: int, alpha: float) -> float:
    a, b = x / m, y / n
    return a - b - float(norm.ppf(1 - alpha)) * math.sqrt(a * (1 - a) / m + b * (1 - b) / n)


@pytest.mark.parametrize(("p", "q", "n"), [(0.95, 0.95, 250), (0.9, 0.97, 250), (0.99, 0.995, 250), (0.995, 0.995, 100)])
def test_the_difference_bound_keeps_its_level(p: float, q: float, n: int) -> None:
    """2,000 simulated comparisons: the Monte-Carlo error at 95 % is 0.5 points, of which three are allowed for."""
    assert coverage(difference_lower, p, q, n) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_control_the_normal_approximation_does_not_keep_it() -> None:
    assert coverage(wald, 0.99, 0.995, 250) < 0.95 - 6 * math.sqrt(0.95 * 0.05 / 2000)
    assert wald(250, 250, 250, 250, 0.05) == 0.0, "an interval of no width"
    assert difference_lower(250, 250, 250, 250, 0.05) < -0.01
