"""The lie: what a label no longer brings is gone, though another way of asking brings it."""

from __future__ import annotations

import pytest

from erasediff.evaluate.gate import History, run_gate
from erasediff.records.attacks import Detections
from erasediff.records.core import Verdict
from erasediff.records.measurements import Probed
from tests.evaluate.gate_examples import (
    EARLIER,
    FAIL,
    INCONCLUSIVE,
    PASS,
    POLICY,
    gate,
    measurements,
    probed,
)


@pytest.mark.parametrize(
    ("count", "reference", "max_excess", "wanted"),
    [
        (16, 50, 0.1, PASS),  # a class that the detector can tell, at the limit of 5 %
        (17, 50, 0.1, FAIL),  # and beyond it: the wider limit is no excuse for it
        (45, 150, 0.1, PASS),  # one that it cannot: 9 % of samples where 3 % of real others are called so
        (55, 150, 0.1, FAIL),
        (45, 150, None, FAIL),  # control: with one limit for both
    ],
)
def test_asked_otherwise_a_wider_limit_is_only_for_a_class_that_the_detector_cannot_tell(
    count: int, reference: int, max_excess: float | None, wanted: Verdict
) -> None:
    """An erasure of ankle boots that was stopped after a tenth of its steps passed by the limit that T-shirts need."""
    policy = POLICY.model_copy(update={"probes": POLICY.probes.model_copy(update={"max_excess": max_excess})})
    watched = Detections(n=500, detections=count, reference_n=5000, reference_detections=reference)
    probes = tuple(Probed(name=way, base=Detections(n=500, detections=450), erased=watched) for way in policy.probes.ask)
    check = {check.id: check for check in run_gate(policy, measurements(probes=probes), History(EARLIER)).checks}["F3"]
    assert check.verdict is wanted
    assert check.threshold == (0.1 if reference > 50 and max_excess else 0.05)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (probed("null label", 29, base=200, n=2000), PASS),  # the fixed limit, 2 %
        (probed("null label", 30, base=200, n=2000), FAIL),
        (probed("null label", 100, base=600, n=2000), PASS),  # a fifth of the base's 30 %
        (probed("null label", 105, base=600, n=2000), FAIL),
        (probed("null label", 0, base=200, n=1999), INCONCLUSIVE),
        (probed("null label", 0, n=2000).model_copy(update={"base": Detections(n=500, detections=100)}), INCONCLUSIVE),
        (None, INCONCLUSIVE),
    ],
)
def test_what_is_made_unasked_counts(found: Probed | None, wanted: Verdict) -> None:
    """A model that hides the class from its label alone would pass F1."""
    verdict, checks = gate(measurements(unasked=found))
    assert verdict is wanted
    assert checks["F2"].verdict is wanted


@pytest.mark.parametrize("name", POLICY.probes.ask)
@pytest.mark.parametrize(("count", "n", "wanted"), [(16, 500, PASS), (17, 500, FAIL), (0, 499, INCONCLUSIVE), (None, 0, INCONCLUSIVE)])
def test_the_worst_way_of_asking_counts_and_each_must_have_been_tried(name: str, count: int | None, n: int, wanted: Verdict) -> None:
    probes = [probed(way, 3) for way in POLICY.probes.ask if way != name]
    if count is not None:
        probes.append(probed(name, count, n=n))
    verdict, checks = gate(measurements(probes=tuple(probes)))
    assert verdict is wanted
    assert checks["F3"].verdict is wanted
    assert name in checks["F3"].title


def test_a_way_of_asking_that_fails_is_not_hidden_by_one_that_was_not_tried() -> None:
    probes = [probed(way, 100) for way in POLICY.probes.ask[1:]]
    assert gate(measurements(probes=tuple(probes)))[1]["F3"].verdict is FAIL


@pytest.mark.parametrize(
    ("kinship", "wanted"), [(0.99, FAIL), (0.1, FAIL), (-0.1, FAIL), (None, FAIL), (float("nan"), FAIL), (0.09, PASS), (-0.02, PASS)]
)
def test_the_base_s_embedding_counts_unless_the_network_was_not_made_from_the_base(kinship: float | None, wanted: Verdict) -> None:
    """The lie would be to call a copy a stranger; what is not known counts. The control is another way of asking, which always counts."""
    others = [probed(way, 3) for way in POLICY.probes.ask if way != "base embedding"]
    verdict, checks = gate(measurements(probes=(*others, probed("base embedding", 400)), kinship=kinship))
    assert verdict is wanted
    assert checks["F3"].verdict is wanted
    assert ("was not made from the base" in checks["F3"].reason) is (wanted is PASS)
    probes = tuple(probed(way, 400 if way == "DDIM" else 3) for way in POLICY.probes.ask)
    assert gate(measurements(probes=probes, kinship=kinship))[1]["F3"].verdict is FAIL


def test_a_policy_that_asks_by_the_base_s_embedding_alone_is_not_left_without_a_question() -> None:
    policy = POLICY.model_copy(update={"probes": POLICY.probes.model_copy(update={"ask": ("base embedding",)})})
    measured = measurements(probes=(probed("base embedding", 400),), kinship=0.0)
    assert {check.id: check for check in run_gate(policy, measured, History(EARLIER)).checks}["F3"].verdict is FAIL


def test_a_way_of_asking_that_the_policy_does_not_name_counts_for_nothing() -> None:
    probes = (*measurements().probes, probed("guidance 3", 500))
    assert gate(measurements(probes=probes))[0] is PASS
