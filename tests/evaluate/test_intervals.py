"""The lies: 'at most 2 %, at 95 % confidence' and 'no worse than before', from a bound that does not hold its level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from erasediff.evaluate.statistics import binomial_lower, binomial_upper, difference_lower, difference_upper, paired_difference_lower

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
    """One detection more does not pass, which is the control."""
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


def test_the_published_example_of_pairs() -> None:
    """Fagerland, Lydersen and Laake 2014, table I: 1, 1, 7, 12 of 21; square-and-add interval -0.507 to -0.026."""
    assert paired_difference_lower(1, 1, 7, 21, 0.025) == pytest.approx(-0.507, abs=5e-4)
    assert -paired_difference_lower(1, 7, 1, 21, 0.025) == pytest.approx(-0.026, abs=5e-4)


@pytest.mark.parametrize(("rate", "n"), [(0.9, 200), (0.5, 100), (0.6, 1000)])
def test_of_uncorrelated_pairs_the_bound_is_that_of_two_samples(rate: float, n: int) -> None:
    successes = round(rate * n)
    both = round(rate * successes)
    assert paired_difference_lower(both, successes - both, successes - both, n, 0.05) == pytest.approx(
        difference_lower(successes, n, successes, n, 0.05), abs=1e-12
    )


@pytest.mark.parametrize("cells", [(-1, 0, 0), (1, 0, -1), (5, 3, 3)])
def test_what_are_no_counts_of_pairs_have_no_bound(cells: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="are not counts of pairs"):
        paired_difference_lower(*cells, 10, 0.05)


def paired_coverage(bound, cells: tuple[float, float, float], n: int, trials: int = 2000) -> float:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [*cells, 1 - sum(cells)], trials)
    return float(np.mean([bound(int(a), int(b), int(c), n, 0.05) <= cells[1] - cells[2] + 1e-12 for a, b, c, _ in drawn]))


def paired_wald(both: int, gained: int, lost: int, n: int, alpha: float) -> float:
    return (gained - lost) / n - float(norm.ppf(1 - alpha)) * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n


@pytest.mark.parametrize(
    ("cells", "n"),
    [((0.9, 0.02, 0.03), 250), ((0.55, 0.05, 0.08), 250), ((0.97, 0.005, 0.01), 250), ((0.8, 0.1, 0.1), 2250), ((0.94, 0.02, 0.03), 100)],
)
def test_the_paired_bound_keeps_its_level(cells: tuple[float, float, float], n: int) -> None:
    assert paired_coverage(paired_difference_lower, cells, n) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_control_the_normal_approximation_of_pairs_does_not_keep_it() -> None:
    assert paired_coverage(paired_wald, (0.97, 0.005, 0.01), 250) < 0.95 - 6 * math.sqrt(0.95 * 0.05 / 2000)
