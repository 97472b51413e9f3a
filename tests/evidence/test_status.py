"""The lies: 'that is all of them', 'five days left' in another time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from erasediff.evidence.clocks import deadlines, start
from erasediff.evidence.status import ROWS_SHOWN, due_row, render_status
from erasediff.records.requests import RequestFacts, State, Terms, Verification
from tests.evidence.walking import filing

NOW = datetime(2026, 3, 2, 11, tzinfo=UTC)
WHOLE = Verification(events=3, requests=3, head="0" * 64)


def facts(number: int, days_ago: int = 0, zone: str = "UTC", state: State = State.RECEIVED) -> RequestFacts:
    asked = filing(number)
    clocks = start(asked.regime, NOW - timedelta(days=days_ago), Terms(zone=zone))
    return RequestFacts(
        id=f"r-{number:016x}", regime=asked.regime, scope="class", erasure=asked.erasure, clocks=clocks, state=state, ledger_head="0" * 64
    )  # fmt: skip


@pytest.mark.parametrize(
    ("requests", "word"),
    [
        ([], "IN TIME"),
        ([facts(1)], "IN TIME"),
        ([facts(1), facts(2, 20)], "DUE SOON"),
        ([facts(1, 20), facts(2, 40)], "OVERDUE"),
        ([facts(2, 40, state=State.CLOSED)], "IN TIME"),
    ],
)
def test_the_word_is_that_of_the_worst_deadline(requests: list[RequestFacts], word: str) -> None:
    assert f"<title>{word}: erasure requests" in render_status(requests, WHOLE, NOW)


def test_rows_that_are_not_shown_are_counted() -> None:
    html = render_status([facts(i) for i in range(ROWS_SHOWN + 7)], WHOLE, NOW)
    assert html.count("<code>r-") == ROWS_SHOWN
    assert "7 more are due later" in html
    assert "more are due later" not in render_status([facts(1)], WHOLE, NOW), "control"


@pytest.mark.parametrize(("zone", "date", "left"), [("UTC", "2026-04-02", "31 days left"), ("Pacific/Kiritimati", "2026-04-03", "31 days left")])
def test_days_are_those_of_the_zone_that_the_date_is_of(zone: str, date: str, left: str) -> None:
    """It is 3 March on Kiritimati already."""
    found = facts(1, zone=zone)
    row = due_row(deadlines(found, NOW)[0], found, NOW)
    assert (row.date, row.left) == (date, left)


@pytest.mark.parametrize(("days_ago", "left"), [(27, "1 day left"), (28, "today"), (60, "29 days ago")])
def test_what_is_left_is_counted_in_days(days_ago: int, left: str) -> None:
    found = facts(1, days_ago)
    assert due_row(deadlines(found, NOW)[0], found, NOW).left == left
