"""The lie: 'each erasure cost little', of a model that many of them have worn out."""

from __future__ import annotations

import math

import pytest

from erasediff.evaluate.gate import History, drift_after, run_gate
from erasediff.records.core import Check, Verdict
from tests.evaluate.gate_examples import EARLIER, FAIL, INCONCLUSIVE, PASS, POLICY, frechet, measurements


def drift(earlier: float | None, **changes: float) -> Check:
    checks = run_gate(POLICY, measurements(frechet=frechet(**changes)), History(EARLIER, earlier)).checks
    return next(check for check in checks if check.id == "R4")


def test_the_first_erasure_has_no_history() -> None:
    assert "R4" not in {check.id for check in run_gate(POLICY, measurements(), History()).checks}


@pytest.mark.parametrize(("earlier", "wanted"), [(1.0, PASS), (1.1, PASS), (1.17, FAIL), (2.0, FAIL), (0.5, PASS)])
def test_changes_are_chained(earlier: float, wanted: Verdict) -> None:
    """The last link is +1 %, at most +4.5 %; all links together may come to +20 %."""
    found = drift(earlier)
    assert found.verdict is wanted
    assert found.value == pytest.approx(earlier * 1.01 - 1)
    assert found.bound is not None
    assert found.bound > found.value


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, 0.0, -1.0])
def test_an_unknown_history_is_no_pass(unknown: float | None) -> None:
    assert drift(unknown).verdict is INCONCLUSIVE


def test_a_link_that_was_not_measured_is_no_pass() -> None:
    assert drift(1.0, n=10).verdict is INCONCLUSIVE
    assert drift_after(measurements(frechet=None), History()) is None


def test_the_next_erasure_starts_from_where_this_one_ended() -> None:
    first = drift_after(measurements(frechet=frechet(fd_base=2.0, fd_erased=2.2)), History())
    assert first == pytest.approx(1.1)
    assert drift_after(measurements(frechet=frechet(fd_base=2.2, fd_erased=2.2)), History(EARLIER, first)) == pytest.approx(1.1)
    assert drift_after(measurements(), History(EARLIER, None)) is None


def test_a_class_of_which_no_picture_is_left_is_reported_and_does_not_decide() -> None:
    """No detector can see it, so 'no detections' would be no evidence. Control: a class that has pictures and was not measured is no pass."""
    without = measurements(earlier={})
    assert run_gate(POLICY, without, History(EARLIER)).verdict is INCONCLUSIVE
    found = run_gate(POLICY, without.model_copy(update={"unseen": EARLIER}), History(EARLIER))
    assert found.verdict is PASS
    assert "F1.1" not in {check.id for check in found.checks}
    (told,) = [check for check in found.reported if check.id == "F1.1"]
    assert (told.verdict, told.title, told.n) == (INCONCLUSIVE, "Class 1 stays forgotten", 0)
    assert "no picture of the class any more" in told.reason
