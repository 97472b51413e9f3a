"""The lie: PASS, on measurements that are missing, damaged, too few, not numbers, or at odds with each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.evaluate.gate import overall
from tests.evaluate.gate_examples import (
    PASS,
    POLICY,
    RETAINED,
    detected,
    gate,
    kernel,
    measurements,
    pairs,
    probed,
    witness,
)

COUNT_FAULTS = st.one_of(
    st.none(),
    st.builds(detected, st.integers(0, 12), st.integers(0, 999)),
    st.builds(detected, st.integers(1001, 5000)),
    st.builds(detected, st.integers(13, 1000)),
)
PROBE_FAULTS = st.one_of(
    st.none(),
    st.builds(lambda k, n: probed(POLICY.probes.ask[0], k, n=n), st.integers(0, 12), st.integers(0, 499)),
    st.builds(lambda k: probed(POLICY.probes.ask[0], k), st.integers(501, 5000)),
    st.builds(lambda k: probed(POLICY.probes.ask[0], k), st.integers(30, 500)),
)
BASE_FAULTS = COUNT_FAULTS.filter(lambda f: f is None or f.n < 1000 or f.detections > 1000)
NUMBERS = st.sampled_from([math.nan, math.inf])
ROW_FAULTS = st.one_of(
    st.just({"n": 249}),
    st.just({"n": 0, "correct_base": 0, "correct_erased": 0, "correct_both": 0}),
    st.just({"correct_both": 246}),
    st.just({"correct_both": 240}),
    st.just({"n": 251}),
    st.just({"correct_base": 251}),
    st.just({"correct_erased": 251}),
    st.just({"label": 0}),
    st.builds(lambda k: {"correct_erased": k, "correct_both": k}, st.integers(0, 215)),
).flatmap(lambda change: st.tuples(st.integers(1, len(RETAINED) - 1), st.just(change)))
FRECHET_FAULTS = st.one_of(
    st.none(),
    st.builds(lambda field, value: {field: value}, st.sampled_from(["fd_base", "fd_erased", "bootstrap_mean", "bootstrap_sd"]), NUMBERS),
    st.builds(lambda n: {"n": n}, st.integers(0, 1999)),
    st.builds(lambda n: {"resamples": n}, st.integers(0, 199)),
    st.builds(lambda fd: {"fd_base": fd}, st.floats(-5, 0)),
)


def _bad_row(fault: tuple[int, dict[str, int]]) -> dict[str, Any]:
    place, change = fault
    rows = list(measurements().retained.accuracy)
    rows[place] = rows[place].model_copy(update=change)
    return {"retained": tuple(rows)}


def _bad_frechet(fault: dict[str, float] | None) -> dict[str, Any]:
    return {"frechet": None if fault is None else measurements().retained.frechet.model_copy(update=fault)}


KERNEL_FAULTS = st.one_of(
    st.none(),
    st.builds(lambda field, value: {field: value}, st.sampled_from(["base", "difference", "block_sd"]), NUMBERS),
    st.builds(lambda n: {"n": n}, st.integers(0, 1999)),
    st.builds(lambda n: {"blocks": n}, st.integers(0, 19)),
    st.builds(lambda d: {"difference": d}, st.floats(1.1e-3, 10)),
)
MANIFOLD_FAULTS = st.one_of(
    st.none(),
    st.builds(lambda share, n: {share: pairs(n)}, st.sampled_from(["precision", "recall", "coverage"]), st.integers(0, 249)),
    st.builds(
        lambda share, drop: {share: pairs(2000, erased=0.9 - drop, both=0.9 - drop)},
        st.sampled_from(["precision", "recall", "coverage"]),
        st.floats(0.06, 0.9),
    ),
)

FAULTS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], dict[str, Any]]]] = {
    "forget_erased": (COUNT_FAULTS, lambda f: {"forget_erased": f}),
    "forget_base": (BASE_FAULTS, lambda f: {"forget_base": f}),
    "unasked": (PROBE_FAULTS, lambda f: {"unasked": f and f.model_copy(update={"base": detected(200, n=2000)})}),
    "probes": (PROBE_FAULTS, lambda f: {"probes": (*(() if f is None else (f,)), *measurements().probes[1:])}),
    "neighbours": (
        COUNT_FAULTS.filter(lambda f: f is None or f.n < 1000 or f.detections > 20),
        lambda f: {"neighbours": None if f is None else witness().model_copy(update={"erased": f})},
    ),
    "reference": (KERNEL_FAULTS, lambda f: {"reference": measurements(kernel=None if f is None else kernel().model_copy(update=f)).retained}),
    "earlier": (COUNT_FAULTS, lambda f: {"earlier": {} if f is None else {"1": f}}),
    "retained": (ROW_FAULTS, _bad_row),
    "no rows": (st.just(()), lambda f: {"retained": f}),
    "nearest": (st.sets(st.integers(0, 9), max_size=2), lambda f: {"nearest": tuple(f)}),
    "frechet": (FRECHET_FAULTS, _bad_frechet),
    "kernel": (KERNEL_FAULTS, lambda f: {"kernel": None if f is None else kernel().model_copy(update=f)}),
    "manifold": (MANIFOLD_FAULTS, lambda f: {"manifold": None if f is None else measurements().retained.manifold.model_copy(update=f)}),
    "detector": (st.floats(0, 0.89) | NUMBERS, lambda f: {"detector": measurements().detector.model_copy(update={"true_positive_rate": f})}),
}


@pytest.mark.parametrize("first", FAULTS)
@given(data=st.data())
def test_no_fault_ever_passes(first: str, data: st.DataObject) -> None:
    """560 damaged measurements (`make test-thorough`: 5,600): one fault of each kind, alone or with others, on top of the example that passes."""
    others = data.draw(st.sets(st.sampled_from(sorted(FAULTS)), max_size=2))
    changes: dict[str, Any] = {}
    for name in {*others, first}:
        strategy, change = FAULTS[name]
        changes |= change(data.draw(strategy, label=name))
    verdict, checks = gate(measurements(**changes))
    assert verdict is not PASS, changes
    assert verdict is overall(list(checks.values()))
