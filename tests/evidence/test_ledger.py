"""The lies: 'it was filed twice, so it is two', 'the hold was on', 'nobody else changed it', 'the clock was right'. On SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from erasediff.errors import AwaitingApproval, BadInput, Conflict
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.states import TO_ERASE
from erasediff.evidence.turn import SKEW
from erasediff.records.core import ErasureRequest
from erasediff.records.requests import Approval, Filing, Reason, Regime, Terms
from tests.evidence.walking import ROAD, S, approval, filing, send_back, step, walk

DAY = timedelta(days=1)


def test_a_request_goes_the_whole_road(ledger: Ledger, now: datetime) -> None:
    facts = walk(ledger, S.CLOSED, now)
    assert facts.state is S.CLOSED
    assert [event.after for event in ledger.events(facts.id)] == list(ROAD)
    assert facts.approvals == (approval(now),)
    assert facts.ledger_head == ledger.events(facts.id)[-1].digest()
    assert ledger.facts(facts.id) == facts
    assert ledger.verify().holds


def test_the_same_content_is_one_request(ledger: Ledger, now: datetime) -> None:
    first = ledger.file(filing(3), "desk", now)
    assert ledger.file(filing(3), "somebody-else", now + DAY) == first
    assert len(ledger.events()) == 1
    assert ledger.file(filing(4), "desk", now).id != first.id, "control: another label is another request"


def test_the_order_of_commitments_makes_no_other_request(ledger: Ledger, now: datetime) -> None:
    one, two = "1" * 64, "2" * 64
    erasure = ErasureRequest(dataset="digits", label="3")
    ids = {
        ledger.file(Filing(regime=Regime.GDPR, scope="instance", erasure=erasure, commitments=given), "desk", now).id
        for given in ((one, two), (two, one), (two, one, two))
    }
    assert len(ids) == 1


@pytest.mark.parametrize("end", [S.REFUSED, S.WITHDRAWN, S.NOT_FOUND])
def test_what_ended_without_an_erasure_may_be_asked_for_anew(ledger: Ledger, now: datetime, end: S) -> None:
    """A person who took a request back must not find that it is taken back for ever; what was fulfilled stays one request."""
    first = walk(ledger, S.VERIFIED, now)
    match end:
        case S.REFUSED:
            ledger.refuse(first.id, Reason.UNFOUNDED, "desk", now)
        case S.WITHDRAWN:
            ledger.withdraw(first.id, Reason.ASKED_BACK, "desk", now)
        case _:
            ledger.advance(first.id, S.VERIFIED, end, "desk", now)
    if end is not S.WITHDRAWN:
        ledger.advance(first.id, end, S.CLOSED, "desk", now)
    assert ledger.file(filing(3), "desk", now).id != first.id
    fulfilled = walk(ledger, S.CLOSED, now, label=5)
    assert ledger.file(filing(5), "desk", now).id == fulfilled.id, "control"
    assert ledger.verify().holds


def test_the_clock_begins_when_it_came_and_not_when_it_was_filed(ledger: Ledger, now: datetime) -> None:
    facts = ledger.file(filing(), "desk", now, received=now - 20 * DAY)
    assert facts.clocks.due.date().isoformat() == "2026-03-10"
    with pytest.raises(BadInput, match="in the future"):
        ledger.file(filing(4), "desk", now, received=now + DAY)


def test_of_two_who_saw_the_same_state_one_succeeds(ledger: Ledger, now: datetime) -> None:
    facts = walk(ledger, S.SUPPRESSED, now)
    ledger.advance(facts.id, S.SUPPRESSED, S.BATCHED, "run-1", now)
    with pytest.raises(Conflict, match="another process was first"):
        ledger.advance(facts.id, S.SUPPRESSED, S.BATCHED, "run-2", now)
    assert [event.by for event in ledger.events(facts.id) if event.after is S.BATCHED] == ["run-1"]


def test_a_hold_stops_the_purge_and_not_the_suppression(ledger: Ledger, now: datetime) -> None:
    facts = ledger.hold(walk(ledger, S.ACCEPTED, now).id, Reason.LITIGATION, "counsel", now)
    for state in ROAD[ROAD.index(S.SUPPRESSED) : ROAD.index(S.PURGING)]:
        facts = step(ledger, facts.id, state, now)
    with pytest.raises(BadInput, match="legal hold"):
        step(ledger, facts.id, S.PURGING, now)
    assert ledger.facts(facts.id) == facts
    ledger.release(facts.id, Reason.LITIGATION, "counsel", now)
    assert step(ledger, facts.id, S.PURGING, now).state is S.PURGING, "control: the hold was what stopped it"


@pytest.mark.parametrize("state", [S.PURGING, S.PURGED, S.CERTIFIED])
def test_a_hold_may_come_while_data_are_being_deleted(ledger: Ledger, now: datetime, state: S) -> None:
    facts = walk(ledger, state, now)
    ledger.hold(facts.id, Reason.AUTHORITY_ORDER, "counsel", now)
    with pytest.raises(BadInput, match="legal hold"):
        step(ledger, facts.id, ROAD[ROAD.index(state) + 1], now)


def test_the_end_of_one_hold_does_not_end_another(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.ROLLED_OUT, now).id
    for reason in (Reason.LITIGATION, Reason.AUDIT, Reason.LITIGATION):
        ledger.hold(one, reason, "counsel", now)
    assert ledger.release(one, Reason.LITIGATION, "counsel", now).held
    with pytest.raises(BadInput, match="has no hold with the reason litigation"):
        ledger.release(one, Reason.LITIGATION, "counsel", now)
    assert not ledger.release(one, Reason.AUDIT, "counsel", now).held


def test_a_request_that_is_held_before_it_was_decided_waits_in_legal_hold(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.LOCATED, now).id
    assert ledger.hold(one, Reason.LITIGATION, "counsel", now).state is S.LEGAL_HOLD
    assert ledger.release(one, Reason.LITIGATION, "counsel", now).state is S.LOCATED
    ledger.hold(one, Reason.LITIGATION, "counsel", now)
    suppressed = ledger.advance(one, S.LEGAL_HOLD, S.SUPPRESSED, "desk", now)
    assert suppressed.held


def test_a_failed_gate_sends_it_back_without_its_verdict_and_approvals(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.ERASED, now).id
    assert step(ledger, one, S.GATED, now, verdict="FAIL").verdict == "FAIL"
    with pytest.raises(BadInput, match="did not pass the gate"):
        ledger.approve(one, approval(now), now)
    back = send_back(ledger, one, now)
    assert (back.state, back.verdict) == (S.SUPPRESSED, None)
    assert ledger.requests(TO_ERASE) == (back,)
    for state in (S.BATCHED, S.ERASED, S.GATED, S.APPROVED):
        step(ledger, one, state, now)
    assert send_back(ledger, one, now, Reason.ROLLED_BACK).approvals == (), "they were of another model"


def test_nothing_is_approved_but_by_a_signature(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.GATED, now).id
    with pytest.raises(BadInput, match="cannot become APPROVED"):
        ledger.advance(one, S.GATED, S.APPROVED, "pipeline", now)


def test_two_people_means_two(where: str, now: datetime) -> None:
    ledger = Ledger.open(where, Terms(approvals=2))
    one = walk(ledger, S.GATED, now).id
    assert ledger.approve(one, approval(now, "officer-1"), now).state is S.GATED
    assert ledger.approve(one, approval(now, "officer-1"), now).approvals == (approval(now, "officer-1"),), "the same once more is nothing"
    for again in (
        Approval(by="officer-1", at=now, key_id="another-key", signature="eA=="),
        Approval(by="officer-3", at=now, key_id="key-of-officer-1", signature="eA=="),
    ):
        with pytest.raises(BadInput, match="another person with their own key must"):
            ledger.approve(one, again, now)
    assert ledger.approve(one, approval(now, "officer-2"), now).state is S.APPROVED


def test_who_asks_for_approvals_rolls_nothing_out_without_them(where: str, now: datetime) -> None:
    """Control: the same step of a house that asks for none, from the same ledger."""
    ledger = Ledger.open(where, Terms(approvals=1))
    one = walk(ledger, S.GATED, now).id
    with pytest.raises(AwaitingApproval, match="1 approvals and has 0"):
        ledger.advance(one, S.GATED, S.ROLLED_OUT, "pipeline", now)
    assert ledger.facts(one).state is S.GATED
    assert Ledger.open(where, Terms()).advance(one, S.GATED, S.ROLLED_OUT, "pipeline", now).state is S.ROLLED_OUT


def test_an_approval_from_the_future_is_refused(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.GATED, now).id
    with pytest.raises(BadInput, match="dated in the future"):
        ledger.approve(one, approval(now + DAY), now)


def test_a_purge_may_wait_and_say_why(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.PURGING, now).id
    assert ledger.wait(one, Reason.OBJECT_LOCK, "purge", now).waiting is Reason.OBJECT_LOCK
    ledger.wait(one, Reason.OBJECT_LOCK, "purge", now)
    assert len([event for event in ledger.events(one) if event.kind == "waiting"]) == 1
    assert step(ledger, one, S.PURGED, now).waiting is None


def test_an_extension_needs_a_notice_in_time(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.VERIFIED, now).id
    for noticed in (now - DAY, now + 2 * DAY):
        with pytest.raises(BadInput, match="notice"):
            ledger.extend(one, Reason.COMPLEX, noticed, "desk", now + DAY)
    with pytest.raises(BadInput, match="many_requests"):
        ledger.extend(one, Reason.LITIGATION, now, "desk", now + DAY)
    facts = ledger.extend(one, Reason.COMPLEX, now, "desk", now + DAY)
    assert (facts.clocks.due.date().isoformat(), facts.clocks.extended) == ("2026-06-02", True)


def test_a_notice_that_came_too_late_extends_nothing(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.VERIFIED, now).id
    late = now + 40 * DAY
    with pytest.raises(BadInput, match="notice"):
        ledger.extend(one, Reason.COMPLEX, late, "desk", late)
    assert ledger.extend(one, Reason.COMPLEX, now + 30 * DAY, "desk", late).clocks.extended, "control: a late entry of a notice in time"


def test_a_request_cannot_be_taken_back_while_it_is_being_erased(ledger: Ledger, now: datetime) -> None:
    one = walk(ledger, S.BATCHED, now).id
    with pytest.raises(BadInput, match="BATCHED and cannot become WITHDRAWN"):
        ledger.withdraw(one, Reason.ASKED_BACK, "desk", now)
    send_back(ledger, one, now, Reason.RUN_FAILED)
    assert ledger.withdraw(one, Reason.ASKED_BACK, "desk", now).state is S.WITHDRAWN


def test_what_is_due_first_comes_first_and_of_the_same_day_what_came_first(ledger: Ledger, now: datetime) -> None:
    days = ((1, 1), (2, 9), (3, 20), (4, 20), (5, 20), (6, 20))
    filed = [ledger.file(filing(label), "desk", now, received=now - ago * DAY).id for label, ago in days]
    assert [facts.id for facts in ledger.requests()] == [*filed[2:], filed[1], filed[0]]
    walk(ledger, S.BATCHED, now, label=4)
    assert [facts.id for facts in ledger.requests([S.BATCHED])] == [filed[3]]


def test_what_is_due_is_said_until_it_is_answered(ledger: Ledger, now: datetime) -> None:
    one = ledger.file(filing(regime=Regime.CCPA), "desk", now).id
    assert [d.what for d in ledger.due(now, 15 * DAY)] == ["confirmation"]
    ledger.confirm(one, "desk", now)
    ledger.confirm(one, "desk", now)
    assert ledger.due(now, 15 * DAY) == ()
    (due,) = ledger.due(now + 60 * DAY, 14 * DAY)
    assert (due.request, due.what, due.urgency) == (one, "answer", "overdue")
    ledger.refuse(one, Reason.EXEMPT, "desk", now)
    assert len(ledger.due(now + 60 * DAY, 14 * DAY)) == 1, "nobody was told yet"
    ledger.advance(one, S.REFUSED, S.CLOSED, "desk", now)
    assert ledger.due(now + 60 * DAY, 14 * DAY) == ()


def test_a_clock_that_went_backwards_is_refused(ledger: Ledger, now: datetime) -> None:
    facts = walk(ledger, S.VERIFIED, now)
    before = now - SKEW - timedelta(seconds=1)
    for attempt in (
        lambda: ledger.advance(facts.id, S.VERIFIED, S.LOCATED, "desk", before),
        lambda: ledger.file(filing(8), "desk", before),
        lambda: ledger.due(before, DAY),
    ):
        with pytest.raises(BadInput, match="set the clock right"):
            attempt()
    assert ledger.facts(facts.id) == facts
    ledger.advance(facts.id, S.VERIFIED, S.LOCATED, "desk", now - SKEW)
    assert ledger.events()[-1].at == now, "a clock that differs a little writes the last event's time"


def test_no_field_takes_a_person(ledger: Ledger, now: datetime) -> None:
    """An actor, a fact or its name that could hold a name, an address or a sentence is refused, and nothing is written."""
    facts = walk(ledger, S.VERIFIED, now)
    for by, given in (
        ("Jane Doe", {}),
        ("jane@example.org", {}),
        ("desk", {"name": "Jane"}),
        ("desk", {"record_sha256": "Jane"}),
        ("desk", {"run": "Jane Doe"}),
        ("desk", {"reason": "because Jane asked"}),
    ):
        with pytest.raises(BadInput):
            ledger.advance(facts.id, S.VERIFIED, S.LOCATED, by, now, given)
    assert ledger.facts(facts.id) == facts
    ledger.advance(facts.id, S.VERIFIED, S.LOCATED, "desk", now, {"record_sha256": "0" * 64, "run": "3f-1", "attempt": 1})


@pytest.mark.parametrize("reason", [None, Reason.LITIGATION])
def test_a_refusal_has_a_reason_of_its_own(ledger: Ledger, now: datetime, reason: Reason | None) -> None:
    facts = walk(ledger, S.LOCATED, now)
    with pytest.raises(BadInput, match="identity_not_shown"):
        ledger.advance(facts.id, S.LOCATED, S.REFUSED, "desk", now, {"reason": reason} if reason else {})


def test_an_unknown_request_is_a_sentence(ledger: Ledger, now: datetime) -> None:
    with pytest.raises(BadInput, match="no request r-0000000000000000"):
        ledger.hold("r-0000000000000000", Reason.AUDIT, "counsel", now)


def test_the_time_of_another_zone_is_the_same_time(ledger: Ledger, now: datetime) -> None:
    from zoneinfo import ZoneInfo

    ledger.file(filing(), "desk", now.astimezone(ZoneInfo("Asia/Kolkata")))
    assert ledger.events()[0].at.utcoffset() == timedelta(0)
    assert ledger.events()[0].at == now.astimezone(UTC)
