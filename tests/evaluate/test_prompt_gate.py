"""The lies: PASS on prompts that nobody measured, 'one sentence with a thousand seeds is a thousand', 'FAIL' where the judge was blind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.errors import BadInput
from erasediff.evaluate.gate import overall, run_prompt_gate
from erasediff.records.core import Verdict
from erasediff.records.prompt_measurements import PromptCounts, ScoreChange
from erasediff.records.prompt_policy import PromptPolicy
from tests.evaluate.prompt_gate_examples import (
    KEPT,
    KEPT_SEEDS,
    POLICY,
    PROMPTS,
    RELEASED,
    SEEDS,
    counts,
    gate,
    inversion,
    measurements,
    replays,
    scores,
)

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def test_a_good_erasure_passes() -> None:
    """Control of everything below: every check is asked, and all of them pass."""
    verdict, checks = gate()
    assert verdict is PASS
    assert list(checks) == ["C0", "C0.detector", "C0.scorer", "F1", "F3", "R1p", "F5"]
    assert {check.verdict for check in checks.values()} == {PASS}
    assert checks["F1"].n == PROMPTS * SEEDS
    assert gate(RELEASED)[0] is PASS


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"erased": counts(1)}, "F1"),
        ({"erased": counts(10, showing=5)}, "F1"),
        ({"replays": replays(counts(1, showing=80, seeds=5))}, "F3"),
        ({"scores": scores(-0.0105)}, "R1p"),
    ],
)
def test_one_failed_check_fails(changes: dict[str, Any], failed: str) -> None:
    verdict, checks = gate(**changes)
    assert verdict is FAIL
    assert [check.id for check in checks.values() if check.verdict is FAIL] == [failed]


def test_the_bound_counts_prompts_and_not_seeds() -> None:
    """20 of 1,000 images: spread over twenty prompts they pass, all of two prompts they do not."""
    spread, heaped = gate(erased=counts(1, showing=20)), gate(erased=counts(10, showing=2))
    assert spread[1]["F1"].value == heaped[1]["F1"].value == 0.02
    assert (spread[0], heaped[0]) == (PASS, FAIL)


def test_a_control_that_does_not_hold_leaves_nothing_to_say() -> None:
    """A base that does not make the concept, a detector that sees it everywhere, a scorer that guesses; each with a failing candidate."""
    blind = {
        "C0": {"base": counts(6)},
        "C0.detector": {"false_positives": counts(10, KEPT, KEPT_SEEDS)},
        "C0.scorer": {"matched": counts(5, KEPT, KEPT_SEEDS)},
    }
    for control, changes in blind.items():
        verdict, checks = gate(erased=counts(10), **changes)
        assert verdict is checks[control].verdict is INCONCLUSIVE
        assert checks["F1"].verdict is FAIL, "control: without the control it would have failed"


def test_the_trained_token_decides_only_where_weights_are_released() -> None:
    strong = inversion(erased=400)
    verdict, checks = gate(inversion=strong)
    assert (verdict, checks["F5"].verdict) == (PASS, FAIL)
    assert [check.id for check in run_prompt_gate(POLICY, measurements()).reported] == ["F5"], "it is no line of the table that decides"
    assert gate(RELEASED, inversion=strong)[0] is FAIL
    assert gate(inversion=None)[0] is PASS
    assert gate(RELEASED, inversion=None)[0] is INCONCLUSIVE
    assert gate(RELEASED, inversion=inversion(base=20))[0] is INCONCLUSIVE, "the attack does not work on the base either"


@pytest.mark.parametrize("change", [math.nan, math.inf, -math.inf, 3.0])
def test_what_is_no_difference_of_cosines_is_neither_kept_nor_lost(change: float) -> None:
    """A score on another scale would pass by any margin."""
    verdict, checks = gate(scores=ScoreChange.model_construct(changes=(change,) * KEPT, samples=(KEPT_SEEDS,) * KEPT))
    assert verdict is checks["R1p"].verdict is INCONCLUSIVE
    assert gate(scores=scores(0.5))[0] is PASS, "control"


def test_the_same_measurements_always_give_the_same_checks() -> None:
    assert gate(erased=counts(2, showing=15)) == gate(erased=counts(2, showing=15))


NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf])


def count_faults(prompts: int, seeds: int, bad: int, showing: int | None = None) -> st.SearchStrategy[PromptCounts | None]:
    """Missing, too few prompts, too few seeds, no counts; or ``bad``, which does not pass."""
    return st.one_of(
        st.none(),
        st.integers(0, prompts - 1).map(lambda n: counts(0, n, seeds)),
        st.tuples(st.integers(0, prompts - 1), st.integers(-1, seeds - 1)).map(
            lambda place: PromptCounts(detections=(0,) * prompts, samples=tuple(place[1] if i == place[0] else seeds for i in range(prompts)))
        ),
        st.integers(seeds + 1, 1000).map(lambda k: counts(k, prompts, seeds, showing=1)),
        st.integers(-1000, -1).map(lambda k: counts(k, prompts, seeds, showing=1)),
        st.just(PromptCounts(detections=(0,) * (prompts + 1), samples=(seeds,) * prompts)),
        st.just(counts(bad, prompts, seeds, showing)),
    )


SCORE_FAULTS = st.one_of(
    st.none(),
    st.integers(0, KEPT - 1).map(lambda n: scores(prompts=n)),
    st.integers(-1, KEPT_SEEDS - 1).map(lambda n: scores(seeds=n)),
    st.tuples(st.integers(0, KEPT - 1), NUMBERS | st.floats(2.1, 1e6)).map(
        lambda fault: ScoreChange.model_construct(
            changes=tuple(fault[1] if i == fault[0] else 0.0 for i in range(KEPT)), samples=(KEPT_SEEDS,) * KEPT
        )
    ),
    st.floats(-1, -0.01).map(scores),
)
TOKEN_FAULTS = st.one_of(
    st.none(),
    st.integers(0, POLICY.inversion.n - 1).map(lambda n: inversion(n=n, base=n, erased=0)),
    st.integers(POLICY.inversion.n + 1, 10_000).map(lambda k: inversion(erased=k)),
    st.integers(101, POLICY.inversion.n).map(lambda k: inversion(erased=k)),
    st.integers(0, 50).map(lambda k: inversion(base=k)),
)
FAULTS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], dict[str, Any]]]] = {
    "base": (count_faults(PROMPTS, SEEDS, 6), lambda f: {"base": f}),
    "erased": (count_faults(PROMPTS, SEEDS, 2), lambda f: {"erased": f}),
    "false_positives": (count_faults(KEPT, KEPT_SEEDS, 5), lambda f: {"false_positives": f}),
    "matched": (count_faults(KEPT, KEPT_SEEDS, 5), lambda f: {"matched": f}),
    "replays": (count_faults(PROMPTS, POLICY.replay.seeds, 2), lambda f: {"replays": replays()[:-1] if f is None else replays(f)}),
    "scores": (SCORE_FAULTS, lambda f: {"scores": f}),
    "inversion": (TOKEN_FAULTS, lambda f: {"inversion": f}),
}


@pytest.mark.parametrize("first", FAULTS)
@given(data=st.data())
def test_no_fault_ever_passes(first: str, data: st.DataObject) -> None:
    """280 damaged measurements (`make test-thorough`: 2,800): one fault of each kind, alone or with others, on top of the example that passes."""
    others = data.draw(st.sets(st.sampled_from(sorted(FAULTS)), max_size=2))
    changes: dict[str, Any] = {}
    for name in {*others, first}:
        strategy, change = FAULTS[name]
        changes |= change(data.draw(strategy, label=name))
    verdict, checks = gate(RELEASED, **changes)
    assert verdict is not PASS, changes
    assert verdict is overall(list(checks.values()))


def test_measurements_hold_no_number_that_is_none() -> None:
    with pytest.raises(BadInput, match="finite"):
        ScoreChange.parse({"changes": [math.nan], "samples": [1]}, "it")
    assert measurements().scores == scores(), "control"


@pytest.mark.parametrize(
    ("part", "change", "word"),
    [
        ("forget", {"prompts": 58}, "0.050"),
        ("replay", {"prompts": 20}, "replay.prompts"),
        ("control", {"min_detected": 0.99}, "min_detected"),
        ("control", {"max_false_positives": 0.05}, "max_false_positives"),
        ("forget", {"max_upper": 0.8}, "could pass"),
        ("retain", {"score_margin": 0}, "score_margin"),
        ("detector", {"kind": "pickle"}, "detector.kind"),
        ("sampling", {"eta": 1}, "eta"),
    ],
)
def test_a_policy_that_nothing_could_pass_or_that_is_not_one_is_refused(part: str, change: dict[str, Any], word: str) -> None:
    document = POLICY.model_dump()
    assert PromptPolicy.parse(document, "control") == POLICY
    with pytest.raises(BadInput, match=word):
        PromptPolicy.parse(document | {part: document[part] | change}, "the policy")
