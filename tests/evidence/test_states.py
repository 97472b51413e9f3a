"""The lies: 'nobody approved it, but it works', 'a state is what somebody wrote'. The table itself, and random walks on a real ledger."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from erasediff.errors import BadInput
from erasediff.evidence import states
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.states import HOLDS, REFUSALS, RETURNS, STOPPED_BY_A_HOLD, TABLE, WITHDRAWALS
from erasediff.records.requests import Reason, Regime, State
from tests.evidence.walking import S, approval, filing

ONWARD = {(move.before, move.after) for move in TABLE if move.before is not move.after}


def reachable(without: set[tuple[State, State]]) -> set[State]:
    found, edge = {S.RECEIVED}, {S.RECEIVED}
    while edge:
        edge = {after for before, after in ONWARD - without if before in edge} - found
        found |= edge
    return found


def test_every_state_can_be_reached_and_every_request_can_end() -> None:
    assert reachable(set()) == set(State)
    for state in set(State) - {S.CLOSED, S.WITHDRAWN}:
        assert any(before is state for before, _ in ONWARD), state


@pytest.mark.parametrize(
    "edge", [*pairwise((S.BATCHED, S.ERASED, S.GATED)), *pairwise((S.ROLLED_OUT, S.PURGING, S.PURGED, S.CERTIFIED))], ids=lambda edge: edge[1]
)
def test_there_is_no_way_around_a_step(edge: tuple[State, State]) -> None:
    """Take one step out of the table, and what comes after it cannot be reached at all: nothing is certified without each of them."""
    assert S.CERTIFIED not in reachable({edge})


def test_nothing_is_rolled_out_but_what_passed_the_gate_with_approvals_or_where_none_are_asked_for() -> None:
    """Which of the two the house wants is the ledger's to hold (test_ledger.py); control: either way leads there by itself."""
    ways = {(S.GATED, S.ROLLED_OUT), (S.APPROVED, S.ROLLED_OUT)}
    assert S.ROLLED_OUT not in reachable(ways)
    assert all(S.ROLLED_OUT in reachable({way}) for way in ways)


def test_nothing_is_erased_without_a_decision() -> None:
    decisions = {(S.LOCATED, S.ACCEPTED), (S.LEGAL_HOLD, S.ACCEPTED), (S.LEGAL_HOLD, S.SUPPRESSED)}
    assert S.BATCHED not in reachable(decisions)
    assert S.BATCHED in reachable(decisions - {(S.LOCATED, S.ACCEPTED)}), "control"


def test_a_hold_stops_every_step_of_the_purge_and_none_before() -> None:
    destroyed = {S.PURGING, S.PURGED, S.CERTIFIED}
    for before, after in ONWARD:
        stopped = (before, after) in STOPPED_BY_A_HOLD
        assert stopped == (after in destroyed or (before, after) == (S.CERTIFIED, S.CLOSED)), (before, after)


def test_nothing_comes_back_once_the_model_was_rolled_out() -> None:
    after = {S.ROLLED_OUT, S.PURGING, S.PURGED, S.CERTIFIED, S.CLOSED}
    assert not {(before, to) for before, to in ONWARD if before in after and to not in after}


@settings(max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
class Walk(RuleBasedStateMachine):
    """Anybody does anything to a few requests. What the ledger allows is held against what a request's own history must have in it."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger.open(Path(self.folder.name))
        self.now = datetime(2026, 1, 31, 9, tzinfo=UTC)
        self.holds: dict[str, set[Reason]] = {}
        self.written = 0

    def teardown(self) -> None:
        try:
            assert self.ledger.verify().problems == ()
            assert len(self.ledger.events()) == self.written
            for facts in self.ledger.requests():
                self.check_history(facts.id)
        finally:
            self.folder.cleanup()

    def attempt(self, one: str, act: Any) -> bool:
        """Do something; what is refused must have changed nothing, and what is not has written one event or none."""
        before = self.ledger.facts(one)
        try:
            after = act()
        except BadInput:
            assert self.ledger.facts(one) == before
            return False
        assert self.ledger.facts(one) == after
        self.written += after.ledger_head != before.ledger_head
        return True

    @initialize(target=ids)
    def first(self) -> str:
        return self.file_anew(0, Regime.GDPR)

    @rule(target=ids, label=st.integers(0, 2), regime=st.sampled_from(Regime))
    def file_anew(self, label: int, regime: Regime) -> str:
        known = {facts.id for facts in self.ledger.requests()}
        one = self.ledger.file(filing(label, regime), "desk", self.now).id
        self.written += one not in known
        self.holds.setdefault(one, set())
        return one

    @rule(one=ids, data=st.data())
    def onward(self, one: str, data: st.DataObject) -> None:
        """A move that the table has, so that walks get far."""
        state = self.ledger.facts(one).state
        choices = sorted(move.after for move in TABLE if move.before is state and move.kind == "advanced")
        if choices:
            to = data.draw(st.sampled_from(choices))
            facts: dict[str, str | int | bool] = {}
            if to is S.GATED:
                facts = {"verdict": data.draw(st.sampled_from(["PASS", "PASS", "FAIL"]))}
            elif to in (S.REFUSED, S.WITHDRAWN, S.SUPPRESSED):
                facts = {"reason": {S.REFUSED: min(REFUSALS), S.WITHDRAWN: min(WITHDRAWALS), S.SUPPRESSED: min(RETURNS)}[to].value}
            stopped = bool(self.holds[one]) and (state, to) in STOPPED_BY_A_HOLD
            assert self.attempt(one, lambda: self.ledger.advance(one, state, to, "pipeline", self.now, facts)) != stopped

    @rule(one=ids, expected=st.sampled_from(State), to=st.sampled_from(State))
    def anywhere(self, one: str, expected: State, to: State) -> None:
        """A move that somebody made up."""
        state = self.ledger.facts(one).state
        if self.attempt(one, lambda: self.ledger.advance(one, expected, to, "somebody", self.now)):
            assert (expected, to) in ONWARD
            assert state is expected

    @rule(one=ids, reason=st.sampled_from(sorted(HOLDS)))
    def hold(self, one: str, reason: Reason) -> None:
        if self.attempt(one, lambda: self.ledger.hold(one, reason, "counsel", self.now)):
            self.holds[one].add(reason)

    @rule(one=ids, reason=st.sampled_from(sorted(HOLDS)))
    def release(self, one: str, reason: Reason) -> None:
        if self.attempt(one, lambda: self.ledger.release(one, reason, "counsel", self.now)):
            self.holds[one].remove(reason)

    @rule(one=ids, who=st.sampled_from(["officer-1", "officer-2"]))
    def approve(self, one: str, who: str) -> None:
        self.attempt(one, lambda: self.ledger.approve(one, approval(self.now, who), self.now))

    @rule(one=ids)
    def extend(self, one: str) -> None:
        before = self.ledger.facts(one).clocks
        if self.attempt(one, lambda: self.ledger.extend(one, Reason.COMPLEX, self.now, "desk", self.now)):
            assert not before.extended
            assert self.ledger.facts(one).clocks.due > before.due

    @rule(hours=st.integers(-1, 48))
    def time_goes_by(self, hours: int) -> None:
        self.now += timedelta(hours=max(hours, 0))

    @precondition(lambda self: self.written)
    @rule()
    def an_old_clock(self) -> None:
        last = self.ledger.events()[-1].at
        with pytest.raises(BadInput, match="set the clock right"):
            self.ledger.file(filing(9), "desk", last - timedelta(minutes=2))

    @invariant()
    def what_is_held_says_so(self) -> None:
        for facts in self.ledger.requests(states.TO_ERASE):
            assert facts.state in states.TO_ERASE
            assert facts.held == bool(self.holds[facts.id])

    def check_history(self, one: str) -> None:
        """What must be behind a request that is where it is, read from its events alone."""
        history = self.ledger.events(one)
        after = Counter(event.after for event in history if event.before is not event.after)
        facts = self.ledger.facts(one)
        assert facts.held == bool(self.holds[one])
        if after[S.PURGING]:
            passed = [i for i, event in enumerate(history) if event.facts.get("verdict") == "PASS"]
            approved = [i for i, event in enumerate(history) if event.kind == "approved"]
            purged = next(i for i, event in enumerate(history) if event.after is S.PURGING)
            assert max(i for i in passed if i < purged) < max(i for i in approved if i < purged)
            assert facts.approvals
        held: set[object] = set()
        for event in history:
            reason = {event.facts.get("reason")}
            held = held | reason if event.kind == "held" else held - reason if event.kind == "released" else held
            assert not (held and (event.before, event.after) in STOPPED_BY_A_HOLD)


TestWalk = Walk.TestCase
