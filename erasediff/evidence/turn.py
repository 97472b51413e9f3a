"""A writer's turn: it holds the next place in the chain until its transaction ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from erasediff.errors import BadInput, Conflict, IntegrityError
from erasediff.evidence.chain import GENESIS, Line, parse_line
from erasediff.evidence.database import EVENTS, HEAD
from erasediff.records.requests import Event, State

SKEW = timedelta(seconds=60)
"""How far a clock may lag behind the last event: clocks differ between machines, and a writer reads its clock before it waits for the lock."""


@dataclass(frozen=True)
class Turn:
    """The place of the next event: after event ``number`` with the digest ``digest``, at the time ``at`` in UTC."""

    connection: Connection
    number: int
    digest: str
    at: datetime

    def event(self, kind: str, id: str, before: State | None, after: State, by: str, facts: Mapping[str, str | int | bool]) -> Event:
        """The next event.

        Raises:
            BadInput: a field is not valid, such as an actor's name with a space.
        """
        document = {"number": self.number + 1, "request": id, "kind": kind, "before": before, "after": after, "at": self.at, "by": by}
        return Event.parse(document | {"facts": dict(facts), "previous": self.digest}, "the event")

    def write(self, event: Event) -> None:
        """Append it to the chain.

        Raises:
            Conflict: another event has this place.
        """
        place = (HEAD.c.number == self.number) & (HEAD.c.digest == self.digest)
        if self.connection.execute(update(HEAD).where(place).values(number=event.number, digest=event.digest())).rowcount != 1:
            raise Conflict("another process wrote an event first: run the same command again.")
        row = {"number": event.number, "request": event.request, "digest": event.digest(), "body": event.canonical().decode()}
        self.connection.execute(insert(EVENTS).values(**row))


def take_turn(connection: Connection, now: datetime) -> Turn:
    """Lock the ledger until the transaction ends.

    Raises:
        BadInput: the clock lags behind the last event.
        IntegrityError: the head does not name the last event.
    """
    number, digest = connection.execute(select(HEAD.c.number, HEAD.c.digest).with_for_update()).one()
    last = last_event(connection, number, digest)
    return Turn(connection, number, digest, checked(now, last))


def last_event(connection: Connection, number: int, digest: str) -> Event | None:
    """The ledger's last event, or ``None``.

    Raises:
        IntegrityError: the head does not name the last event.
    """
    row = connection.execute(select(EVENTS).order_by(EVENTS.c.number.desc()).limit(1)).first()
    if (row.number, row.digest) != (number, digest) if row is not None else (number, digest) != (0, GENESIS):
        raise IntegrityError("the ledger's head does not name its last event: verify it with `erasediff status`, and restore a copy.")
    return None if row is None else parse_line(Line(row.number, row.request, row.digest, row.body))


def checked(now: datetime, last: Event | None) -> datetime:
    """The event's time: now, but never before the last event.

    Raises:
        BadInput: the clock lags behind the last event, or has no time zone.
    """
    if now.tzinfo is None:
        raise BadInput("the time has no time zone: give one.")
    if last is not None and last.at - now > SKEW:
        here, there = (f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for at in (now, last.at))
        raise BadInput(f"this clock says {here} UTC and the ledger's last event is of {there}: set the clock right.")
    return max(now.astimezone(UTC), last.at) if last is not None else now.astimezone(UTC)


def check_clock(connection: Connection, now: datetime) -> None:
    """Refuse a clock that lags behind the last event.

    Raises:
        BadInput: see :func:`checked`.
    """
    number, digest = connection.execute(select(HEAD.c.number, HEAD.c.digest)).one()
    checked(now, last_event(connection, number, digest))
