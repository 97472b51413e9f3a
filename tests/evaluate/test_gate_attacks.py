"""The lie: 'it withstood the attacks', of attacks that were not made, that have no power, or that brought the class back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.evaluate.gate import Decision, History, run_gate
from erasediff.records.attacks import AttackMeasurements
from erasediff.records.core import Verdict
from erasediff.records.policy import GatePolicy
from tests.evaluate.attack_examples import attacks, compared, membership, relearned
from tests.evaluate.gate_examples import EARLIER, FAIL, INCONCLUSIVE, PASS, POLICY, detected, measurements


def policy(**attacks: Any) -> GatePolicy:
    return POLICY.model_copy(update={"tier": 2, "attacks": POLICY.attacks.model_copy(update=attacks)})


def decided(measured: AttackMeasurements | None, asked: GatePolicy | None = None) -> Decision:
    return run_gate(asked or policy(), measurements(attacks=measured), History(EARLIER))


def by_id(decision: Decision) -> dict[str, Verdict]:
    return {check.id: check.verdict for check in (*decision.checks, *decision.reported)}


def test_control_the_good_example_withstands_everything() -> None:
    decision = decided(attacks())
    assert decision.verdict is PASS
    assert {check.id for check in decision.checks} >= {"F4", "F7", "F3.partial"}
    assert {check.id for check in decision.reported} == {"F5", "F6", "F9.loss"}
    assert set(by_id(decision).values()) == {PASS}


def test_tier_1_asks_for_no_attack_and_tier_2_does_not_pass_without_them() -> None:
    assert run_gate(POLICY, measurements(), History(EARLIER)).reported == ()
    assert "F4" not in by_id(run_gate(POLICY, measurements(attacks=attacks()), History(EARLIER)))
    assert decided(None).verdict is INCONCLUSIVE


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"finetuned": compared(40)}, "F4"),
        ({"partial": compared(140, retrained=80)}, "F3.partial"),
        ({"reached": detected(40, 174)}, "F7"),
    ],
)
def test_what_an_attack_brings_back_fails(change: dict[str, Any], check: str) -> None:
    decision = decided(attacks(**change))
    assert decision.verdict is FAIL
    assert [name for name, verdict in by_id(decision).items() if verdict is not PASS] == [check]


@pytest.mark.parametrize("name", ["finetuned", "partial"])
def test_an_attack_that_the_base_withstands_too_has_no_power(name: str) -> None:
    assert decided(attacks(**{name: compared(0, base=5)})).verdict is INCONCLUSIVE


def test_what_a_model_without_the_class_yields_too_is_not_held_against_the_erasure() -> None:
    """60 of 500 fail F4, unless an attack on a model that never had the class brings as many."""
    assert decided(attacks(finetuned=compared(60))).verdict is FAIL
    assert decided(attacks(finetuned=compared(60, retrained=60))).verdict is PASS


def test_the_weights_decide_only_where_users_get_them() -> None:
    found = attacks(inverted=compared(300))
    assert decided(found).verdict is PASS
    assert by_id(decided(found))["F5"] is FAIL, "it is reported all the same"
    assert decided(found, policy(weights_released=True)).verdict is FAIL
    assert decided(attacks(), policy(weights_released=True)).verdict is PASS, "control"


def test_without_a_model_to_compare_with_what_needs_one_is_reported_as_open() -> None:
    alone = attacks(partial=compared(60, retrained=None), relearned=relearned(8, 8, 8, without=()))
    decision = decided(alone, policy(retrain=False))
    assert decision.verdict is PASS
    assert [by_id(decision)[name] for name in ("F3.partial", "F6")] == [INCONCLUSIVE, INCONCLUSIVE]
    assert decided(alone).verdict is INCONCLUSIVE, "control: where the policy asks for one, it is no pass without"


@pytest.mark.parametrize(
    ("erased", "without", "wanted"),
    [
        ((8, 8, 8), (8, 8, 8), PASS),
        ((4, 8, 8), (8, 8, 8), PASS),
        ((2, 8, 8), (8, 8, 8), FAIL),
        ((None, 8, 8), (None, 8, 8), PASS),
        ((4, 8, 8), (None, 8, 8), FAIL),
        ((8, 8), (8, 8), INCONCLUSIVE),
    ],
)
def test_relearning_is_judged_by_its_fastest_repeat(erased: tuple[int | None, ...], without: tuple[int | None, ...], wanted: Verdict) -> None:
    assert by_id(decided(attacks(relearned=relearned(*erased, without=without))))["F6"] is wanted


@pytest.mark.parametrize(
    ("auc", "members", "error", "wanted"),
    [(0.5, 1000, 0.013, PASS), (0.6, 1000, 0.013, FAIL), (0.4, 1000, 0.013, FAIL), (0.5, 60, 0.05, INCONCLUSIVE), (0.7, 60, 0.05, INCONCLUSIVE)],
)
def test_few_members_never_show_that_nothing_is_known(auc: float, members: int, error: float, wanted: Verdict) -> None:
    assert by_id(decided(attacks(membership=membership(auc, members, error))))["F9.loss"] is wanted


NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf])
COUNTS = st.one_of(st.just(detected(0, 0)), st.builds(lambda n: detected(0, n), st.integers(1, 499)), st.just(detected(501, 500)))
BAD_ATTACK = st.one_of(
    st.builds(lambda found: compared(4).model_copy(update={"erased": found}), COUNTS),
    st.builds(lambda found: compared(4).model_copy(update={"base": found}), COUNTS),
    st.builds(lambda count: compared(count), st.integers(50, 500)),
    st.builds(lambda count: compared(4, base=count), st.integers(0, 10)),
)
BAD_REACH = st.one_of(st.builds(lambda n: detected(0, n), st.integers(0, 99)), st.builds(lambda k: detected(k, 174), st.integers(20, 500)))
FAULTS = {"finetuned": BAD_ATTACK, "partial": BAD_ATTACK, "inverted": BAD_ATTACK.filter(lambda f: f.erased.detections != 50), "reached": BAD_REACH}


@pytest.mark.parametrize("name", FAULTS)
@given(data=st.data())
def test_no_faulty_attack_ever_passes(name: str, data: st.DataObject) -> None:
    """Damaged measurements. The inverted embedding's limit is wider, so what it fails by is more."""
    fault = data.draw(FAULTS[name])
    if name == "inverted" and fault.erased.n == 500 and fault.base.detections > 200:
        fault = fault.model_copy(update={"erased": detected(max(fault.erased.detections, 150), 500)})
    assert decided(attacks(**{name: fault}), policy(weights_released=True)).verdict is not PASS


@given(value=NUMBERS, field=st.sampled_from(["auc", "standard_error"]))
def test_an_auc_that_is_no_number_never_passes(value: float, field: str) -> None:
    broken = tuple(found.model_copy(update={field: value}) for found in membership())
    assert by_id(decided(attacks(membership=broken)))["F9.loss"] is not PASS
