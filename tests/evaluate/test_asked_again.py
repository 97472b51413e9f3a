"""The lie: 'it was only asked more often', of a model that was asked until it passed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from erasediff.evaluate.gate.retain import samples_needed
from erasediff.evaluate.statistics import paired_difference_lower
from erasediff.records.core import Verdict
from erasediff.records.measurements import ClassAccuracy
from tests.evaluate.gate_examples import POLICY, RETAINED, gate, measurements, row

MARGIN, TRIALS = POLICY.retain.class_margin, 2000
NOISE = 3 * math.sqrt(0.05 * 0.95 / TRIALS)
Cells = list[float]
"""Shares of pairs: both right, the candidate alone, the base alone, neither."""


def cells(base: float, change: float, disagreement: float) -> Cells:
    gained, lost = (disagreement + change) / 2, (disagreement - change) / 2
    return [base - lost, gained, lost, 1 - base - gained]


def counted(label: int, both: int, gained: int, lost: int, n: int) -> ClassAccuracy:
    return ClassAccuracy(label=label, n=n, correct_base=both + lost, correct_erased=both + gained, correct_both=both)


def holds(counts: np.ndarray) -> bool:
    both, gained, lost, _ = (int(count) for count in counts)
    return paired_difference_lower(both, gained, lost, int(counts.sum()), POLICY.alpha) >= -MARGIN


def once(draw: Callable[[int], np.ndarray]) -> bool:
    return holds(draw(POLICY.retain.n_per_class))


def by_disagreement(draw: Callable[[int], np.ndarray]) -> bool:
    """What R1.class does."""
    first = draw(POLICY.retain.n_per_class)
    both, gained, lost, _ = (int(count) for count in first)
    needed = samples_needed(counted(0, both, gained, lost, int(first.sum())), POLICY.retain)
    return holds(first + draw(needed - int(first.sum())))


def until_it_passes(draw: Callable[[int], np.ndarray]) -> bool:
    """What it must not do."""
    first = draw(POLICY.retain.n_per_class)
    return holds(first) or holds(first + draw(1000 - int(first.sum())))


def passed(way: Callable[[Callable[[int], np.ndarray]], bool], of: Cells) -> float:
    generator = np.random.default_rng(0)
    return sum(way(lambda n: generator.multinomial(n, of)) for _ in range(TRIALS)) / TRIALS


@pytest.mark.parametrize("of", [cells(0.62, -0.1, 0.47), cells(0.62, -0.1, 0.3), cells(0.62, -0.1, 0.16), cells(0.95, -0.1, 0.14)], ids=str)
def test_a_class_at_the_margin_passes_as_rarely_as_it_may(of: Cells) -> None:
    assert passed(by_disagreement, of) <= POLICY.alpha + NOISE


def test_control_asking_until_it_passes_is_caught() -> None:
    assert passed(until_it_passes, cells(0.62, -0.1, 0.47)) > POLICY.alpha + 2 * NOISE


def test_a_model_trained_apart_that_is_nearly_as_good_passes() -> None:
    """Control: on 250 samples half of them do not."""
    apart = cells(0.62, -0.03, 0.47)
    assert passed(once, apart) < 0.6
    assert passed(by_disagreement, apart) > 0.9


def test_who_is_better_is_not_looked_at() -> None:
    better, worse = counted(0, 100, 50, 30, 250), counted(0, 100, 30, 50, 250)
    assert samples_needed(better, POLICY.retain) == samples_needed(worse, POLICY.retain) > 250
    assert samples_needed(counted(0, 240, 2, 2, 250), POLICY.retain) == 250, "control: those that agree are not asked again"
    assert samples_needed(counted(0, 0, 125, 125, 250), POLICY.retain) == POLICY.retain.max_per_class
    assert samples_needed(counted(0, 100, 10, 60, 250), POLICY.retain) == 250, "what is worse by twice the margin has failed"


def test_the_gate_wants_what_the_disagreement_asks_for() -> None:
    """A class that was not asked again, or too little, is INCONCLUSIVE; asked enough it is judged by all of it."""
    weak = counted(RETAINED[0], 100, 55, 60, 250)
    needed = samples_needed(weak, POLICY.retain)
    rows = (weak, *(row(label) for label in RETAINED[1:]))

    def said(*further: ClassAccuracy) -> tuple[Verdict, int]:
        retained = measurements(retained=rows).retained.model_copy(update={"further": further})
        check = gate(measurements().model_copy(update={"retained": retained}))[1]["R1.class"]
        return check.verdict, check.n

    assert said()[0] is Verdict.INCONCLUSIVE
    assert said(counted(RETAINED[0], 4 * 100, 4 * 55, 4 * 60, needed - 1))[0] is Verdict.INCONCLUSIVE
    assert said(counted(RETAINED[0], 4 * 100, 4 * 55, 4 * 60, needed)) == (Verdict.PASS, needed)
    assert said(counted(RETAINED[0], 400, 100, 400, needed))[0] is Verdict.FAIL
