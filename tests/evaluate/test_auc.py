"""The lie: 'the attack cannot tell members from others', said by a test that could not have told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from erasediff.evaluate.statistics import equivalence_to_chance, membership_auc, required_members


def by_definition(members: np.ndarray, controls: np.ndarray) -> tuple[float, float]:
    """The AUC and DeLong's standard error by counting every pair, as the paper defines them."""
    beats = (members[:, None] > controls).astype(float) + 0.5 * (members[:, None] == controls)
    of_members, of_controls = beats.mean(1), beats.mean(0)
    return float(beats.mean()), math.sqrt(of_members.var(ddof=1) / len(members) + of_controls.var(ddof=1) / len(controls))


@pytest.mark.parametrize(("m", "n", "digits"), [(30, 50, 9), (30, 50, 0), (2, 40, 1), (100, 7, 1)])
def test_the_auc_and_its_error_are_those_of_the_definition(m: int, n: int, digits: int) -> None:
    """With scores rounded to few digits, ties count half."""
    rng = np.random.default_rng(m + digits)
    members, controls = np.round(rng.normal(0.3, 1, m), digits), np.round(rng.normal(0, 1.5, n), digits)
    found = membership_auc(members, controls, 0.05)
    assert (found.auc, found.standard_error) == pytest.approx(by_definition(members, controls), abs=1e-12)
    assert found.auc == pytest.approx(mannwhitneyu(members, controls).statistic / (m * n), abs=1e-12)
    assert found.upper - found.auc == pytest.approx(norm.ppf(0.95) * found.standard_error)


def test_the_direction_is_that_of_members_above_controls() -> None:
    high, low = np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0])
    assert membership_auc(high, low, 0.05).auc == 1.0
    assert membership_auc(low, high, 0.05).auc == 0.0


@pytest.mark.parametrize("scores", [np.array([1.0]), np.array([1.0, math.nan]), np.array([1.0, math.inf])])
def test_too_few_or_not_finite_scores_have_no_auc(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="two finite scores"):
        membership_auc(scores, np.arange(5.0), 0.05)
    with pytest.raises(ValueError, match="two finite scores"):
        membership_auc(np.arange(5.0), scores, 0.05)


def simulated(shift: float, n: int, trials: int = 1000) -> list:
    rng = np.random.default_rng(0)
    return [membership_auc(rng.normal(shift, 1, n), rng.normal(0, 1, n), 0.05) for _ in range(trials)]


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_the_interval_keeps_its_level(shift: float) -> None:
    """1,000 experiments; an interval of level 90 % must cover the true AUC in 87.2 % at least, three sigma below."""
    truth = norm.cdf(shift / math.sqrt(2))
    assert np.mean([found.lower <= truth <= found.upper for found in simulated(shift, 80)]) >= 0.872


def test_an_auc_at_the_margin_is_called_chance_in_five_of_a_hundred_at_most() -> None:
    """The level of the two one-sided tests: the lie that must stay rare. The control is an attack that knows nothing."""
    at_the_margin = math.sqrt(2) * norm.ppf(0.55)
    assert np.mean([found.within(0.05) for found in simulated(at_the_margin, 600)]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
    assert np.mean([found.within(0.05) for found in simulated(0.0, 600)]) == pytest.approx(equivalence_to_chance(600, 600, 0.05, 0.05), abs=0.04)


def test_few_images_show_nothing_whatever_the_attack_says() -> None:
    assert equivalence_to_chance(100, 100, 0.05, 0.05) == 0.0
    assert not any(found.within(0.05) for found in simulated(0.0, 100, trials=100))


@pytest.mark.parametrize(("margin", "power", "needed"), [(0.05, 0.8, 572), (0.1, 0.8, 144)])
def test_how_many_images_the_test_needs(margin: float, power: float, needed: int) -> None:
    assert required_members(margin, 0.05, power) == needed
    assert equivalence_to_chance(needed, needed, margin, 0.05) >= power > equivalence_to_chance(needed - 1, needed - 1, margin, 0.05)
