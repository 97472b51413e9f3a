"""A writer's turn: the place in the chain that is its own until its transaction ends."""

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
"""How far a clock may lie behind the last event: a writer looks at its clock before it waits for its turn, and clocks of machines differ."""


@dataclass(frozen=True)
class Turn:
    """Where the next event goes: after ``number``, whose digest is ``digest``; at ``at`` in UTC."""

    connection: Connection
    number: int
    digest: str
    at: datetime

    def event(self, kind: str, id: str, before: State | None, after: State, by: str, facts: Mapping[str, str | int | bool]) -> Event:
        """The event that would be next.

        Raises:
            BadInput: it has a field that cannot be, such as an actor's name with a blank.
        """
        document = {"number": self.number + 1, "request": id, "kind": kind, "before": before, "after": after, "at": self.at, "by": by}
        return Event.parse(document | {"facts": dict(facts), "previous": self.digest}, "the event")

    def write(self, event: Event) -> None:
        """Add it to the chain.

        Raises:
            Conflict: another one has this place.
        """
        place = (HEAD.c.number == self.number) & (HEAD.c.digest == self.digest)
        if self.connection.execute(update(HEAD).where(place).values(number=event.number, digest=event.digest())).rowcount != 1:
            raise Conflict("another event was written meanwhile: run the same command again.")
        row = {"number": event.number, "request": event.request, "digest": event.digest(), "body": event.canonical().decode()}
        self.connection.execute(insert(EVENTS).values(**row))


def take_turn(connection: Connection, now: datetime) -> Turn:
    """Wait for the turn and hold it until the transaction ends.

    Raises:
        BadInput: the clock lies behind the last event.
        IntegrityError: the last event is not the one that the head names.
    """
    number, digest = connection.execute(select(HEAD.c.number, HEAD.c.digest).with_for_update()).one()
    last = last_event(connection, number, digest)
    return Turn(connection, number, digest, checked(now, last))


def last_event(connection: Connection, number: int, digest: str) -> Event | None:
    """The ledger's last event, ``None`` if there is none.

    Raises:
        IntegrityError: it is not the one that the head names, or not the last.
    """
    row = connection.execute(select(EVENTS).order_by(EVENTS.c.number.desc()).limit(1)).first()
    if (row.number, row.digest) != (number, digest) if row is not None else (number, digest) != (0, GENESIS):
        raise IntegrityError("the ledger's last event is not the one that its head names: verify it with `erasediff status`, and restore a copy.")
    return None if row is None else parse_line(Line(row.number, row.request, row.digest, row.body))


def checked(now: datetime, last: Event | None) -> datetime:
    """The time to write, never before the last event's.

    Raises:
        BadInput: the clock lies behind the last event, or has no time zone.
    """
    if now.tzinfo is None:
        raise BadInput("the time has no time zone: give one.")
    if last is not None and last.at - now > SKEW:
        here, there = (f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for at in (now, last.at))
        raise BadInput(f"this clock says {here} UTC and the ledger's last event is of {there}: set the clock right.")
    return max(now.astimezone(UTC), last.at) if last is not None else now.astimezone(UTC)


def check_clock(connection: Connection, now: datetime) -> None:
    """Refuse to say what is due by a clock that lies behind the last event.

    Raises:
        BadInput: see :func:`checked`.
    """
    number, digest = connection.execute(select(HEAD.c.number, HEAD.c.digest)).one()
    checked(now, last_event(connection, number, digest))
