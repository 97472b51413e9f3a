"""The lies: 'the ledger says so, so it was so', 'nothing was taken out'. Every way to change a ledger is a test; the untouched one verifies."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import select

from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.chain import GENESIS
from erasediff.evidence.database import EVENTS
from erasediff.evidence.ledger import Ledger
from erasediff.records.requests import Event
from tests.evidence.conftest import Tamper
from tests.evidence.walking import S, walk


@pytest.fixture
def walked(ledger: Ledger, now: datetime) -> Ledger:
    """Two requests whose events are mixed; it verifies."""
    for state in (S.RECEIVED, S.ACCEPTED, S.GATED):
        for label in (1, 2):
            walk(ledger, state, now, label=label)
    assert ledger.verify().problems == (), "control"
    assert ledger.verify().events == 16
    return ledger


def rewrite(tamper: Tamper, event: Event, number: int) -> None:
    body = event.canonical().decode().replace("'", "''")
    tamper(f"UPDATE ledger_events SET body = '{body}', digest = '{event.digest()}' WHERE number = {number}")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE ledger_events SET body = REPLACE(body, 'pipeline', 'someone_') WHERE number = 5", "event 5 of the ledger was changed"),
        ("UPDATE ledger_events SET body = '{}' WHERE number = 5", "event 5 of the ledger is not valid"),
        ("UPDATE ledger_events SET body = 'x' WHERE number = 5", "event 5 of the ledger is not JSON"),
        ("DELETE FROM ledger_events WHERE number = 5", "after event 4 comes event 6"),
        ("DELETE FROM ledger_events WHERE number = 1", "after event 0 comes event 2"),
        ("DELETE FROM ledger_events WHERE number = 16", "last event is 15"),
        ("DELETE FROM ledger_events", "last event is 0"),
        ("UPDATE ledger_events SET number = 99 WHERE number = 16", "event 16|event 99"),
        ("UPDATE ledger_requests SET state = 'CERTIFIED' WHERE state = 'GATED'", "state of request .* does not follow"),
        ("UPDATE ledger_requests SET state = 'nonsense'", "state of request"),
        ("UPDATE ledger_requests SET held = NOT held", "hold of request"),
        ("UPDATE ledger_requests SET due = due + 86400", "due date of request"),
        ("UPDATE ledger_requests SET confirm_by = 1", "confirmation of request"),
        ("UPDATE ledger_requests SET live = NULL", "live of request"),
        ("UPDATE ledger_requests SET filing = REPLACE(filing, 'digits', 'others')", "filing of request"),
        ("UPDATE ledger_requests SET head = 'x'", "head of request"),
        ("DELETE FROM ledger_requests", "has events and no entry"),
        ("UPDATE ledger_head SET number = 3", "but its head names 3"),
    ],
)
def test_a_change_by_other_hands_is_found(walked: Ledger, tamper: Tamper, statement: str, says: str) -> None:
    tamper(statement)
    found = walked.verify()
    assert not found.holds
    assert re.search(says, "\n".join(found.problems)), found.problems


def test_two_events_that_changed_places_are_found(walked: Ledger, tamper: Tamper) -> None:
    first, second = walked.events()[6:8]
    rewrite(tamper, second.model_copy(update={"number": 1007}), 7)
    rewrite(tamper, first.model_copy(update={"number": 8}), 8)
    rewrite(tamper, second.model_copy(update={"number": 7}), 7)
    assert any("does not follow the event before it" in problem for problem in walked.verify().problems)


def test_an_event_that_was_changed_with_its_digest_is_found_by_the_next(walked: Ledger, tamper: Tamper) -> None:
    rewrite(tamper, walked.events()[4].model_copy(update={"by": "somebody"}), 5)
    assert any(problem.startswith("event 6 does not follow") for problem in walked.verify().problems)


def test_an_event_that_was_put_in_is_found_even_if_it_chains(walked: Ledger, tamper: Tamper, now: datetime) -> None:
    """Who rewrites everything from there on still cannot make a request PURGED that was never rolled out."""
    last = walked.events()[-1]
    forged = Event(
        number=17, request=last.request, kind="advanced", before=last.after, after=S.PURGED, at=now, by="somebody", previous=last.digest()
    )  # fmt: skip
    tamper(f"INSERT INTO ledger_events VALUES (17, '{last.request}', '{forged.digest()}', '{forged.canonical().decode()}')")
    tamper(f"UPDATE ledger_head SET number = 17, digest = '{forged.digest()}'")
    tamper(f"UPDATE ledger_requests SET state = 'PURGED', head = '{forged.digest()}' WHERE id = '{last.request}'")
    assert any("event 17 may not follow" in problem and "cannot become PURGED" in problem for problem in walked.verify().problems)
    with pytest.raises(IntegrityError, match="tampered with or is damaged"):
        walked.facts(last.request)


def cut_off(ledger: Ledger, tamper: Tamper) -> str:
    """Take the last event off and make everything inside the ledger fit; return the digest that is gone."""
    *_, kept, gone = ledger.events()
    before = [event for event in ledger.events(gone.request) if event.number < gone.number][-1]
    tamper(f"DELETE FROM ledger_events WHERE number = {gone.number}")
    tamper(f"UPDATE ledger_head SET number = {kept.number}, digest = '{kept.digest()}'")
    tamper(f"UPDATE ledger_requests SET state = '{before.after}', head = '{before.digest()}' WHERE id = '{gone.request}'")
    return gone.digest()


def test_a_tail_that_was_cut_off_cleanly_is_found_by_who_holds_a_digest_of_it(walked: Ledger, tamper: Tamper) -> None:
    """What the ledger cannot know by itself, and why certificates quote it."""
    kept = walked.events()[-2].digest()
    gone = cut_off(walked, tamper)
    assert walked.verify().holds, "the limit: nothing inside shows it"
    assert walked.verify(quoted=[kept]).holds
    assert walked.verify(quoted=[kept, gone]).problems == (f"the quoted event {gone} is not in the ledger.",)


def test_a_changed_ledger_is_not_written_to(walked: Ledger, tamper: Tamper, now: datetime) -> None:
    held = walked.requests([S.GATED])[0]
    tamper("UPDATE ledger_requests SET state = 'APPROVED'")
    with pytest.raises(IntegrityError, match="erasediff status"):
        walked.advance(held.id, S.APPROVED, S.ROLLED_OUT, "pipeline", now)
    tamper("UPDATE ledger_requests SET state = 'GATED'")
    tamper("DELETE FROM ledger_events WHERE number = 16")
    with pytest.raises(IntegrityError, match="last event"):
        walk(walked, S.RECEIVED, now, label=9)
    assert walked.verify().events == 15


def test_a_time_that_runs_backwards_inside_is_found(ledger: Ledger, tamper: Tamper, now: datetime) -> None:
    walk(ledger, S.VERIFIED, now)
    event = ledger.events()[1]
    forged = event.model_copy(update={"at": event.at - timedelta(days=1)})
    rewrite(tamper, forged, 2)
    tamper(f"UPDATE ledger_head SET digest = '{forged.digest()}'")
    tamper(f"UPDATE ledger_requests SET head = '{forged.digest()}'")
    assert ledger.verify().problems == ("event 2 is older than the event before it.",)


def test_an_empty_ledger_holds(ledger: Ledger) -> None:
    found = ledger.verify()
    assert (found.holds, found.events, found.head) == (True, 0, GENESIS)


def test_the_chain_is_over_what_is_stored(walked: Ledger) -> None:
    """Control: the body in the database is the canonical JSON whose digest the next event quotes."""
    with walked.database.reading() as connection:
        rows = connection.execute(select(EVENTS).order_by(EVENTS.c.number)).all()
    for before, after in pairwise(rows):
        assert json.loads(after.body)["previous"] == before.digest


def test_a_ledger_of_another_version_is_left_alone(walked: Ledger, tamper: Tamper, where: str) -> None:
    tamper("UPDATE ledger_head SET schema = 3")
    with pytest.raises(BadInput, match="has version 3"):
        Ledger.open(where)
