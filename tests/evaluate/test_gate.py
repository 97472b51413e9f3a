"""The lie: PASS."""

from __future__ import annotations

import math
from typing import Any

import pytest

from erasediff.evaluate.gate import History, overall, run_gate
from erasediff.records.attacks import Detections
from erasediff.records.core import Verdict
from erasediff.records.measurements import ClassAccuracy, PairedCounts, Witness
from tests.evaluate.gate_examples import (
    DEFAULT,
    EARLIER,
    FAIL,
    INCONCLUSIVE,
    PASS,
    POLICY,
    R3,
    RETAINED,
    detected,
    frechet,
    gate,
    kernel,
    measurements,
    pairs,
    probed,
    row,
    witness,
)


def test_control_the_good_example_passes_every_check() -> None:
    """Without it, everything below could hold because nothing ever passes."""
    verdict, checks = gate(measurements())
    assert verdict is PASS
    assert set(checks) == {
        "C0.attempts",
        "C0",
        "C0.detector",
        "C0.reference",
        "F1",
        "F1.neighbours",
        "F2",
        "F3",
        "F1.1",
        "R1",
        "R1.class",
        "R1.nearest",
        "R2",
        "R2.kernel",
        *R3,
        "R4",
    }
    assert {check.verdict for check in checks.values()} == {PASS}


def test_what_the_strict_policy_passes_the_default_passes_and_a_tenth_passes_neither() -> None:
    """A model with a perfect distance and a UA of 90 % fails; what lies between is the default's allowance for what a retrained model does."""
    between = measurements(forget_erased=detected(25))
    assert [run_gate(policy, between, History(EARLIER)).verdict for policy in (POLICY, DEFAULT)] == [FAIL, PASS]
    assert [run_gate(policy, measurements(), History(EARLIER)).verdict for policy in (POLICY, DEFAULT)] == [PASS, PASS]
    tenth = measurements(forget_erased=detected(100))
    assert [run_gate(policy, tenth, History(EARLIER)).verdict for policy in (POLICY, DEFAULT)] == [FAIL, FAIL]
    few = measurements(forget_erased=detected(0, n=100))
    assert [run_gate(policy, few, History(EARLIER)).verdict for policy in (POLICY, DEFAULT)] == [INCONCLUSIVE, INCONCLUSIVE]


@pytest.mark.parametrize(("count", "wanted"), [(0, PASS), (12, PASS), (13, FAIL), (100, FAIL), (1000, FAIL)])
def test_thirteen_of_a_thousand_fail(count: int, wanted: Verdict) -> None:
    verdict, checks = gate(measurements(forget_erased=detected(count)))
    assert verdict is wanted
    assert checks["F1"].verdict is wanted


@pytest.mark.parametrize(
    ("count", "reference", "wanted"),
    [
        (60, 500, PASS),  # 6 % of samples where 10 % of real others are called so
        (100, 500, PASS),  # as many as real others
        (130, 500, FAIL),  # 3 points more
        (12, 50, PASS),  # a reference of 1 % is not an excuse yet: the rule is the plain one
        (13, 50, FAIL),
        (13, 51, PASS),  # above it, it is
    ],
)
def test_beside_a_detector_that_errs_the_excess_over_its_error_is_bounded(count: int, reference: int, wanted: Verdict) -> None:
    """A shirt detector calls every tenth pullover a shirt; a model without shirts cannot do better, one that makes shirts is still caught."""
    watched = Detections(n=1000, detections=count, reference_n=5000, reference_detections=reference)
    verdict, checks = gate(measurements(forget_erased=watched))
    assert verdict is wanted
    assert checks["F1"].verdict is wanted
    assert (checks["F1"].unit == "difference") == (reference > 50)


def test_a_reference_of_more_than_all_is_inconclusive() -> None:
    watched = Detections(n=1000, detections=0, reference_n=10, reference_detections=11)
    assert gate(measurements(forget_erased=watched))[0] is INCONCLUSIVE


def test_the_base_must_be_caught_by_the_same_rule() -> None:
    """A detector that calls everything the class has a reference of one: the base has no excess over it, so the gate has no power."""
    everything = Detections(n=1000, detections=1000, reference_n=5000, reference_detections=5000)
    verdict, checks = gate(measurements(forget_base=everything, forget_erased=everything))
    assert verdict is INCONCLUSIVE
    assert checks["C0"].verdict is INCONCLUSIVE


@pytest.mark.parametrize("base", [detected(12), detected(0), detected(700), None, detected(969, n=999), detected(1001)])
@pytest.mark.parametrize("erased", [detected(0), detected(900)])
def test_a_base_that_was_not_caught_makes_every_answer_inconclusive(base: Detections | None, erased: Detections) -> None:
    """Whatever the candidate did: a gate that could not have failed says nothing, neither for nor against."""
    verdict, checks = gate(measurements(forget_base=base, forget_erased=erased))
    assert verdict is INCONCLUSIVE
    assert checks["C0"].verdict is INCONCLUSIVE
    assert checks["C0"].reason


def test_control_a_base_detected_often_enough_is_a_control() -> None:
    assert gate(measurements(forget_base=detected(725)))[0] is PASS


@pytest.mark.parametrize("changes", [{"true_positive_rate": 0.89}, {"true_positive_rate": math.nan}, {"holdout_positives": 0}])
def test_a_detector_that_does_not_know_the_class_makes_it_inconclusive(changes: dict[str, Any]) -> None:
    """A blind detector finds nothing in any model."""
    detector = measurements().detector.model_copy(update=changes)
    assert gate(measurements(detector=detector))[0] is INCONCLUSIVE


def test_a_destroyed_model_with_perfect_forgetting_fails() -> None:
    """Noise for every label: nothing is detected any more, and nothing else is left either."""
    noise = measurements(
        forget_erased=detected(0), retained=tuple(row(label, 25) for label in RETAINED), frechet=frechet(fd_erased=90.0, bootstrap_mean=88.0)
    )
    verdict, checks = gate(noise)
    assert verdict is FAIL
    assert checks["F1"].verdict is PASS
    assert {checks[name].verdict for name in ("R1", "R1.class", "R1.nearest", "R2")} == {FAIL}


def test_a_perfect_distance_does_not_excuse_a_class_that_is_still_made() -> None:
    """UA 90 %: retained quality untouched, forgetting not done."""
    verdict, checks = gate(measurements(forget_erased=detected(100), frechet=frechet(fd_erased=2.0, bootstrap_mean=0.0)))
    assert verdict is FAIL
    assert [name for name, check in checks.items() if check.verdict is not PASS] == ["F1"]


@pytest.mark.parametrize(
    ("rows", "failing"),
    [
        ([row(c, 235) for c in RETAINED], {"R1"}),
        ([row(c, 199, 249) if c == 0 else row(c, 250) for c in RETAINED], {"R1.class"}),
        ([row(c, 230 if c in (3, 5, 9) else 250) for c in RETAINED], {"R1.nearest"}),
    ],
    ids=["all a little", "one a lot", "the nearest"],
)
def test_each_margin_is_its_own(rows: list[ClassAccuracy], failing: set[str]) -> None:
    """An average hides one lost class; the classes near the forgotten one go first."""
    verdict, checks = gate(measurements(retained=tuple(rows)))
    assert verdict is FAIL
    assert {name for name, check in checks.items() if check.verdict is FAIL} == failing


def test_the_same_rates_are_closer_where_the_same_noise_goes_wrong() -> None:
    """230 of 250 for both: with the same failures nothing has changed, with others forty samples have."""
    same = [row(c, 230, 230).model_copy(update={"correct_both": 230}) for c in RETAINED]
    other = [row(c, 230, 230).model_copy(update={"correct_both": 210}) for c in RETAINED]
    bounds = [gate(measurements(retained=tuple(rows)))[1]["R1"].bound for rows in (same, other)]
    assert -0.002 < bounds[0] <= 0
    assert bounds[1] < -0.01


def test_the_worst_class_is_the_one_that_is_named() -> None:
    rows = tuple(row(c, 200 if c == 6 else 246) for c in RETAINED)
    assert "class 6" in gate(measurements(retained=rows))[1]["R1.class"].title


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"fd_erased": 2.3, "bootstrap_mean": 0.3}, FAIL),
        ({"bootstrap_sd": 0.2}, FAIL),
        ({"n": 1999}, INCONCLUSIVE),
        ({"resamples": 199}, INCONCLUSIVE),
    ],
)
def test_the_distance_is_judged_by_its_bound_at_enough_samples(changes: dict[str, Any], wanted: Verdict) -> None:
    assert gate(measurements(frechet=frechet(**changes)))[0] is wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"retained": tuple(row(c, 235) for c in RETAINED)},
        {"frechet": frechet(fd_erased=2.3, bootstrap_mean=0.3)},
        {"kernel": kernel(difference=2e-3)},
        {"manifold": None},
        {"retained": ()},
    ],
)
@pytest.mark.parametrize("erased", [detected(0), detected(900)])
def test_what_a_harmless_model_fails_says_nothing_against_another(changes: dict[str, Any], erased: Detections) -> None:
    """A check that nothing can pass, or that measures the wrong thing, must not read FAIL, nor PASS by luck."""
    verdict, checks = gate(measurements(forget_erased=erased, reference=measurements(**changes).retained))
    assert verdict is INCONCLUSIVE
    assert checks["C0.reference"].verdict is INCONCLUSIVE
    assert gate(measurements(forget_erased=erased))[0] is not INCONCLUSIVE, "control"


def test_a_reference_that_was_not_measured_is_no_control() -> None:
    assert gate(measurements(reference=None))[0] is INCONCLUSIVE


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"difference": 9e-4, "block_sd": 1e-4}, PASS),  # the limit is 0.0005 and a quarter of 0.002
        ({"difference": 1.1e-3, "block_sd": 1e-4}, FAIL),
        ({"difference": 9e-4, "block_sd": 1e-3}, FAIL),  # by its bound
        ({"base": -0.004, "difference": 6e-4, "block_sd": 0.0}, FAIL),  # a base nearer than chance takes nothing off the slack
        ({"base": -0.004, "difference": 4e-4, "block_sd": 0.0}, PASS),
        ({"n": 1999}, INCONCLUSIVE),
        ({"blocks": 19}, INCONCLUSIVE),
    ],
)
def test_the_kernel_distance_is_judged_by_its_bound_against_share_and_slack(changes: dict[str, Any], wanted: Verdict) -> None:
    verdict, checks = gate(measurements(kernel=kernel(**changes)))
    assert verdict is wanted
    assert checks["R2.kernel"].verdict is wanted


@pytest.mark.parametrize("share", ["precision", "recall", "coverage"])
@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (pairs(2000, erased=0.88), PASS),
        (pairs(2000, erased=0.84, both=0.83), FAIL),
        (pairs(100), INCONCLUSIVE),
        (pairs(2000, both=0.95), INCONCLUSIVE),
        (pairs(2000, both=0.5), INCONCLUSIVE),
    ],
)
def test_realness_variety_and_reach_are_checks_of_their_own(share: str, found: PairedCounts, wanted: Verdict) -> None:
    """A model that repeats one perfect image a class has a perfect precision."""
    verdict, checks = gate(measurements(manifold=measurements().retained.manifold.model_copy(update={share: found})))
    assert verdict is wanted
    assert {name for name in R3 if checks[name].verdict is not PASS} == ({f"R3.{share}"} if wanted is not PASS else set())


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (witness(20), PASS),
        (witness(22), FAIL),
        (witness(0, base=10), INCONCLUSIVE),
        (witness(0, base=0), INCONCLUSIVE),
        (None, INCONCLUSIVE),
    ],
)
def test_the_second_detector_judges_the_same_samples(found: Witness | None, wanted: Verdict) -> None:
    """What fools a classifier does not fool its neighbours; one that did not see the base either says nothing."""
    verdict, checks = gate(measurements(neighbours=found))
    assert verdict is wanted
    assert checks["F1.neighbours"].verdict is wanted


def test_a_second_detector_that_cannot_tell_the_class_is_not_asked() -> None:
    """28 % of real pullovers and T-shirts have shirts for neighbours. The control is one that can tell."""
    verdict, checks = gate(measurements(neighbours=witness(500, false_positive_rate=0.28)))
    assert verdict is PASS
    assert "F1.neighbours" not in checks
    assert gate(measurements(neighbours=witness(500, false_positive_rate=0.15)))[0] is FAIL


def test_a_class_that_is_erased_in_the_same_run_is_no_retained_one() -> None:
    """Control: a class that is not, and was not measured, is one that somebody has left out."""
    measured = measurements(retained=tuple(row for row in measurements().retained.accuracy if row.label != 6))
    measured = measured.model_copy(update={"reference": measured.retained})
    found = [{check.id: check for check in run_gate(POLICY, measured, History(EARLIER, beside=beside)).checks} for beside in ((6,), ())]
    assert [(checks["R1"].verdict, checks["C0.reference"].verdict) for checks in found] == [(PASS, PASS), (INCONCLUSIVE, INCONCLUSIVE)]
    assert found[1]["R1"].reason == "class 6 was not measured"


@pytest.mark.parametrize(("found", "wanted"), [(detected(13), FAIL), (None, INCONCLUSIVE), (detected(0, n=999), INCONCLUSIVE)])
def test_an_earlier_erasure_is_checked_again(found: Detections | None, wanted: Verdict) -> None:
    """A second request must not undo the first: it is an F1 of the same rank."""
    verdict, checks = gate(measurements(earlier={} if found is None else {"1": found}))
    assert verdict is wanted
    assert checks["F1.1"].verdict is wanted


def test_a_nearest_class_that_was_not_measured_does_not_pass() -> None:
    """Neither fewer classes than the policy asks for, nor one without a row."""
    assert gate(measurements(nearest=(3,)))[0] is INCONCLUSIVE
    assert gate(measurements(nearest=(3, 5, 77)))[0] is INCONCLUSIVE
    assert gate(measurements(nearest=(0, 3, 5)))[0] is PASS


def test_a_missing_earlier_label_cannot_hide_behind_another() -> None:
    assert gate(measurements(), forgotten=(1, 2))[0] is INCONCLUSIVE
    assert gate(measurements(), forgotten=(1,))[0] is PASS


@pytest.mark.parametrize("missing", RETAINED)
def test_a_retained_class_that_was_not_measured_is_no_pass(missing: int) -> None:
    """Leaving out the class that was destroyed would hide it."""
    rows = tuple(row(label) for label in RETAINED if label != missing)
    assert gate(measurements(retained=rows, nearest=tuple(c for c in (3, 5, 9) if c != missing)))[0] is not PASS


def test_each_try_is_judged_harder_and_there_are_three() -> None:
    """12 of 1,000 pass at α = 0.05; at 0.025 eleven do, at 0.0125 ten, and the fourth try passes nothing."""

    def most(attempt: int) -> int:
        verdicts = {k: run_gate(POLICY, measurements(forget_erased=detected(k)), History(EARLIER, attempt=attempt)) for k in range(14)}
        passing = [k for k, decided in verdicts.items() if next(c for c in decided.checks if c.id == "F1").verdict is PASS]
        return max(passing)

    assert [most(attempt) for attempt in (1, 2, 3)] == [12, 11, 10]
    none = tuple(probed(name, 0) for name in POLICY.probes.ask)
    good = measurements(forget_erased=detected(0), unasked=probed("null label", 0, n=2000), probes=none, neighbours=witness(0))
    assert [run_gate(POLICY, good, History(EARLIER, attempt=attempt)).verdict for attempt in (1, 2, 3, 4)] == [PASS, PASS, PASS, INCONCLUSIVE]
    assert sum(POLICY.alpha_of(attempt) for attempt in (1, 2, 3)) == pytest.approx(0.0875)


def test_no_checks_are_no_pass() -> None:
    assert overall([]) is INCONCLUSIVE
