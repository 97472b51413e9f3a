"""The lies: 'there is still time', 'a month has thirty days', 'midnight is midnight everywhere'."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.errors import BadInput
from erasediff.evidence.clocks import deadlines, end_of, extended, kept_until, plus_business_days, plus_months, start, urgency
from erasediff.records.requests import Regime, RequestFacts, State, Terms
from tests.evidence.walking import filing

UTC_TERMS = Terms()
ZONES = ("UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Kiritimati", "Pacific/Niue", "Australia/Lord_Howe")
RECEIVED = st.datetimes(datetime(2018, 5, 25), datetime(2060, 1, 1), timezones=st.sampled_from([ZoneInfo(name) for name in ZONES]))


def due(regime: Regime, received: datetime, zone: str = "UTC", own_days: int = 30) -> date:
    clocks = start(regime, received, Terms(zone=zone, own_days=own_days))
    return clocks.due.astimezone(ZoneInfo(zone)).date()


@pytest.mark.parametrize(
    ("received", "last", "extended_to"),
    [
        ("2026-01-15", "2026-02-15", "2026-04-15"),
        ("2026-01-31", "2026-02-28", "2026-04-30"),
        ("2028-01-31", "2028-02-29", "2028-04-30"),
        ("2028-02-29", "2028-03-29", "2028-05-29"),
        ("2026-11-30", "2026-12-30", "2027-02-28"),
        ("2027-11-30", "2027-12-30", "2028-02-29"),
        ("2026-12-31", "2027-01-31", "2027-03-31"),
        ("2026-08-31", "2026-09-30", "2026-11-30"),
    ],
)
def test_a_calendar_month_ends_at_its_own_length(received: str, last: str, extended_to: str) -> None:
    """30 days from 31 January would be 2 March, two days too late."""
    clocks = start(Regime.GDPR, datetime.fromisoformat(f"{received}T12:00Z"), UTC_TERMS)
    assert clocks.due.isoformat() == f"{last}T23:59:59+00:00"
    assert extended(Regime.GDPR, clocks).due.isoformat() == f"{extended_to}T23:59:59+00:00"


@pytest.mark.parametrize(
    ("received", "confirm_by", "last", "extended_to"),
    [
        ("2026-03-02", "2026-03-16", "2026-04-16", "2026-05-31"),  # a Monday
        ("2026-03-06", "2026-03-20", "2026-04-20", "2026-06-04"),  # a Friday
        ("2026-03-07", "2026-03-20", "2026-04-21", "2026-06-05"),  # a Saturday
        ("2028-01-20", "2028-02-03", "2028-03-05", "2028-04-19"),  # over a leap day
    ],
)
def test_the_ccpa_counts_business_days_to_confirm_and_calendar_days_to_answer(received: str, confirm_by: str, last: str, extended_to: str) -> None:
    clocks = start(Regime.CCPA, datetime.fromisoformat(f"{received}T12:00Z"), UTC_TERMS)
    assert clocks.confirm_by is not None
    assert [at.date().isoformat() for at in (clocks.confirm_by, clocks.due)] == [confirm_by, last]
    assert extended(Regime.CCPA, clocks).due.date().isoformat() == extended_to


def test_records_of_the_ccpa_are_kept_for_24_months() -> None:
    ended = datetime(2028, 2, 29, 12, tzinfo=UTC)
    assert kept_until(Regime.CCPA, ended, "UTC") == datetime(2030, 2, 28, 23, 59, 59, tzinfo=UTC)
    assert kept_until(Regime.GDPR, ended, "UTC") is None


def test_the_house_sets_its_own_days_and_cannot_extend_them() -> None:
    clocks = start(Regime.OWN, datetime(2026, 3, 2, tzinfo=UTC), Terms(own_days=5))
    assert clocks.due.date() == date(2026, 3, 7)
    with pytest.raises(BadInput, match="no extension"):
        extended(Regime.OWN, clocks)


def test_there_is_one_extension() -> None:
    once = extended(Regime.GDPR, start(Regime.GDPR, datetime(2026, 3, 2, tzinfo=UTC), UTC_TERMS))
    with pytest.raises(BadInput, match="cannot be extended again"):
        extended(Regime.GDPR, once)


def test_a_day_is_a_day_where_the_house_is() -> None:
    """At 23:30 in New York on 28 February it is March in UTC, and UTC's month would end three days after the law's."""
    received = datetime(2026, 2, 28, 23, 30, tzinfo=ZoneInfo("America/New_York"))
    assert due(Regime.GDPR, received, "America/New_York") == date(2026, 3, 28)
    assert due(Regime.GDPR, received, "UTC") == date(2026, 4, 1), "control: the zone decides"


@pytest.mark.parametrize(("day", "utc"), [("2026-03-29", "21:59:59"), ("2026-03-28", "22:59:59"), ("2026-10-25", "22:59:59")])
def test_a_day_of_23_or_25_hours_ends_when_it_ends(day: str, utc: str) -> None:
    assert end_of(date.fromisoformat(day), ZoneInfo("Europe/Berlin")).time().isoformat() == utc


def test_a_midnight_that_comes_twice_counts_the_first_time() -> None:
    """In Beirut the clock goes from midnight back to 23:00, so that day has its last second twice."""
    assert end_of(date(2026, 10, 24), ZoneInfo("Asia/Beirut")) == datetime(2026, 10, 24, 20, 59, 59, tzinfo=UTC)


def test_an_unknown_zone_and_an_instant_without_one_are_refused() -> None:
    for terms, received in ((Terms(zone="Europe/Atlantis"), datetime(2026, 3, 2, tzinfo=UTC)), (UTC_TERMS, datetime(2026, 3, 2))):
        with pytest.raises(BadInput, match="time zone"):
            start(Regime.GDPR, received, terms)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(0, 40))
def test_months_keep_the_date_or_take_the_last_day(day: date, months: int) -> None:
    later = plus_months(day, months)
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == months
    assert later.day == day.day or (later.day < day.day and (later + timedelta(days=1)).day == 1)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(1, 30))
def test_business_days_are_those_of_the_week(day: date, count: int) -> None:
    later = plus_business_days(day, count)
    between = [day + timedelta(days=i) for i in range(1, (later - day).days + 1)]
    assert sum(d.isoweekday() <= 5 for d in between) == count
    assert later.isoweekday() <= 5


@given(RECEIVED, st.sampled_from(ZONES))
def test_no_clock_runs_longer_than_its_law(received: datetime, zone: str) -> None:
    """31 days at most for a month, 92 for three; 45, 90; and never into another day than the zone's."""
    here = ZoneInfo(zone)
    day = received.astimezone(here).date()
    for regime, most, most_extended in ((Regime.GDPR, 31, 92), (Regime.CCPA, 45, 90)):
        clocks = start(regime, received, Terms(zone=zone))
        later = extended(regime, clocks)
        assert clocks.due.utcoffset() == timedelta(0)
        assert 28 <= (clocks.due.astimezone(here).date() - day).days <= most
        assert (later.due.astimezone(here).date() - day).days <= most_extended
        assert clocks.received <= clocks.due < later.due
        assert later.due.astimezone(here).time().isoformat() == "23:59:59"


@given(RECEIVED, RECEIVED)
def test_who_came_first_is_due_first(one: datetime, other: datetime) -> None:
    first, second = sorted((one, other))
    assert start(Regime.GDPR, first, UTC_TERMS).due <= start(Regime.GDPR, second, UTC_TERMS).due


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(days=14, seconds=1), "later"),
        (timedelta(days=14), "14 days"),
        (timedelta(days=7, seconds=1), "14 days"),
        (timedelta(days=7), "7 days"),
        (timedelta(0), "7 days"),
        (timedelta(seconds=-1), "overdue"),
    ],
)
def test_warnings_come_14_and_7_days_before(left: timedelta, said: str) -> None:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    assert urgency(now + left, now) == said


def test_a_refusal_is_owed_until_it_was_told() -> None:
    """REFUSED says that the house has decided, not that anybody was told; a control shows that what is closed is owed nothing."""
    asked = filing(regime=Regime.CCPA)
    clocks = start(Regime.CCPA, datetime(2026, 3, 2, tzinfo=UTC), UTC_TERMS)
    facts = RequestFacts(
        id="r-0123456789abcdef", regime=asked.regime, scope="class", erasure=asked.erasure, clocks=clocks, state=State.REFUSED, ledger_head="0" * 64
    )
    now = datetime(2026, 3, 3, tzinfo=UTC)
    assert [deadline.what for deadline in deadlines(facts, now)] == ["confirmation", "answer"]
    confirmed = facts.model_copy(update={"clocks": clocks.model_copy(update={"confirmed": True})})
    assert [deadline.what for deadline in deadlines(confirmed, now)] == ["answer"]
    for ended in (State.CLOSED, State.WITHDRAWN):
        assert deadlines(facts.model_copy(update={"state": ended}), now) == ()
