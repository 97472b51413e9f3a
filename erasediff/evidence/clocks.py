"""Compute deadlines: pure functions of a regime and an instant.

Days belong to a time zone, and a deadline is the end of its day. If a law allows two readings, the earlier date counts: a date never moves because
of a weekend or a holiday, and holidays count as business days.

- GDPR, Art. 12(3): one calendar month after receipt, on the same day of the month, or the last day of a shorter month. With an extension, of which
  the person is told within that month: three months after receipt.
- CCPA, 11 CCR § 7021: receipt is confirmed within 10 business days; the answer is due 45 calendar days after receipt, 90 by an extension with
  notice. Records are kept for 24 months (§ 7101).
- ``own``: the operator's number of days, without an extension.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from erasediff.errors import BadInput
from erasediff.records.requests import Clocks, DueDate, Regime, RequestFacts, State, Terms

GDPR_MONTHS, GDPR_MONTHS_EXTENDED = 1, 3
CCPA_DAYS, CCPA_DAYS_EXTENDED, CCPA_CONFIRMATION = 45, 90, 10
CCPA_RECORDS_MONTHS = 24
WARNINGS = (timedelta(days=7), timedelta(days=14))
SETTLED = frozenset({State.CLOSED, State.WITHDRAWN})
"""States without deadlines. REFUSED is not one of them: the person must still be told."""

Urgency = Literal["later", "14 days", "7 days", "overdue"]


def zone_of(name: str) -> tzinfo:
    """The time zone of this name.

    Raises:
        BadInput: this machine does not know it.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"this machine does not know the time zone {name}: correct ERASEDIFF_LEDGER_ZONE, or install the package tzdata.") from None


def plus_months(day: date, months: int) -> date:
    """The same date some months later, or the last day of a month that has no such date."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def plus_business_days(day: date, count: int) -> date:
    """The day ``count`` weekdays after ``day``."""
    while count:
        day += timedelta(days=1)
        count -= day.weekday() < 5
    return day


def end_of(day: date, zone: tzinfo) -> datetime:
    """The last second of a day, in UTC; the earlier one if clocks are set back at midnight."""
    return datetime.combine(day, time(23, 59, 59), tzinfo=zone).astimezone(UTC)


def start(regime: Regime, received: datetime, terms: Terms) -> Clocks:
    """The deadlines of a request received at ``received``.

    Raises:
        BadInput: the instant has no time zone, or this machine does not know the configured one.
    """
    if received.tzinfo is None:
        raise BadInput("the date of receipt has no time zone: give one.")
    zone = zone_of(terms.zone)
    day = received.astimezone(zone).date()
    confirm_by = end_of(plus_business_days(day, CCPA_CONFIRMATION), zone) if regime is Regime.CCPA else None
    match regime:
        case Regime.GDPR:
            last = plus_months(day, GDPR_MONTHS)
        case Regime.CCPA:
            last = day + timedelta(days=CCPA_DAYS)
        case Regime.OWN:
            last = day + timedelta(days=terms.own_days)
    return Clocks(received=received.astimezone(UTC), confirm_by=confirm_by, due=end_of(last, zone), zone=terms.zone)


def extended(regime: Regime, clocks: Clocks) -> Clocks:
    """The deadlines after an extension.

    Raises:
        BadInput: the regime has no extension, or it was used.
    """
    if clocks.extended:
        raise BadInput(f"the request was already extended and is due by {clocks.due:%Y-%m-%d}: it cannot be extended again.")
    zone = zone_of(clocks.zone)
    day = clocks.received.astimezone(zone).date()
    match regime:
        case Regime.GDPR:
            last = plus_months(day, GDPR_MONTHS_EXTENDED)
        case Regime.CCPA:
            last = day + timedelta(days=CCPA_DAYS_EXTENDED)
        case Regime.OWN:
            raise BadInput("the regime 'own' has no extension: set ERASEDIFF_LEDGER_OWN_DAYS for future requests.")
    return clocks.model_copy(update={"due": end_of(last, zone), "extended": True})


def kept_until(regime: Regime, ended: datetime, zone: str) -> datetime | None:
    """Until when the record of a request that ended at ``ended`` must be kept; ``None`` if no law says."""
    if regime is not Regime.CCPA:
        return None
    here = zone_of(zone)
    return end_of(plus_months(ended.astimezone(here).date(), CCPA_RECORDS_MONTHS), here)


def urgency(at: datetime, now: datetime) -> Urgency:
    """How near a deadline is; there are warnings 14 and 7 days before."""
    left = at - now
    if left < timedelta(0):
        return "overdue"
    week, fortnight = WARNINGS
    return "7 days" if left <= week else "14 days" if left <= fortnight else "later"


def deadlines(facts: RequestFacts, now: datetime) -> tuple[DueDate, ...]:
    """The open deadlines of a request: the confirmation of receipt, if needed, and the answer."""
    if facts.state in SETTLED:
        return ()
    clocks = facts.clocks
    confirm_by = None if clocks.confirmed else clocks.confirm_by
    owed: list[tuple[Literal["confirmation", "answer"], datetime | None]] = [("confirmation", confirm_by), ("answer", clocks.due)]
    return tuple(DueDate(request=facts.id, what=what, at=at, urgency=urgency(at, now), state=facts.state, held=facts.held) for what, at in owed if at)
