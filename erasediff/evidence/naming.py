"""Name the classes of a ledger whose requests told them by positions, as an earlier version of EraseDiff did.

The events of before stay as they are, so what a certificate quotes is still found. One event a request follows: it takes the filing with the name for
the one with the position, and states the position, from which anyone with the list of classes can make the former filing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence import chain, states
from erasediff.evidence.chain import Entry, parse_line
from erasediff.evidence.database import BY_POSITIONS, EVENTS, HEAD, REQUESTS, SCHEMA, LedgerDatabase
from erasediff.evidence.states import RequestStanding
from erasediff.evidence.stored import entry_of, line_of
from erasediff.evidence.turn import take_turn
from erasediff.records.former import FormerErasure, FormerFiling
from erasediff.records.requests import Filing, State

Lists = Mapping[str, Sequence[str]]
"""The names of the classes of each dataset, in the order of the positions."""
_TO_BE_FINISHED = frozenset({State.ROLLED_OUT, State.PURGING, State.PURGED})
"""States in which an attempt of before still has to answer the request."""


def name_of(erasure: FormerErasure, lists: Lists) -> str:
    """The name of the class that a request told by its position.

    Raises:
        BadInput: no list of its dataset is given, or it is too short.
    """
    names = lists.get(erasure.dataset)
    if names is None:
        raise BadInput(f"there are requests or attempts for dataset {erasure.dataset}: give its configuration too, by another --config.")
    if erasure.label >= len(names):
        raise BadInput(f"there is a request for position {erasure.label} of {erasure.dataset}, which has {len(names)} classes: give the right list.")
    return names[erasure.label]


def check_ledger(where: str | Path, lists: Lists) -> None:
    """Check that :func:`name_ledger` would name every request; nothing is changed.

    Raises:
        BadInput, IntegrityError: as :func:`name_ledger`.
    """
    with LedgerDatabase(where).reading() as connection:
        if connection.execute(select(HEAD.c.schema)).scalar_one() == BY_POSITIONS:
            _renamed(connection, lists)


def name_ledger(where: str | Path, lists: Lists, by: str, now: datetime) -> int:
    """Name the class of every request of a ledger, and say how many there are; a ledger with names is left as it is.

    Raises:
        BadInput: a class cannot be named, or a request is between its roll-out and its certificate. Nothing is changed then.
        IntegrityError: the ledger does not verify.
    """
    with LedgerDatabase(where).writing() as connection:
        if connection.execute(select(HEAD.c.schema).with_for_update()).scalar_one() != BY_POSITIONS:
            return 0
        renamed = _renamed(connection, lists)
        for one in renamed:
            _write(connection, one, by, now)
        connection.execute(update(HEAD).values(schema=SCHEMA))
    return len(renamed)


class Renamed(NamedTuple):
    """A request with its standing, the position of its class, and its filing with the name."""

    id: str
    standing: RequestStanding
    position: int
    filing: Filing


def _renamed(connection: Connection, lists: Lists) -> list[Renamed]:
    """Every request with the name of its class."""
    entries, standings = _read(connection)
    return [_rename(entry, standings[entry.id], lists) for entry in entries]


def _rename(entry: Entry, standing: RequestStanding, lists: Lists) -> Renamed:
    if standing.state in _TO_BE_FINISHED:
        raise BadInput(f"request {entry.id} is {standing.state}: finish its purge and its certificate with the version of EraseDiff that began them.")
    former = FormerFiling.parse_json(entry.filing, f"the filing of {entry.id}")
    erasure = former.erasure.model_dump() | {"label": name_of(former.erasure, lists)}
    filing = Filing.parse(former.model_dump(mode="json") | {"erasure": erasure}, f"the filing of {entry.id}")
    return Renamed(entry.id, standing, former.erasure.label, filing)


def _read(connection: Connection) -> tuple[list[Entry], dict[str, RequestStanding]]:
    rows = connection.execute(select(EVENTS).order_by(EVENTS.c.number)).all()
    entries = [entry_of(row) for row in connection.execute(select(REQUESTS).order_by(REQUESTS.c.id))]
    number, digest = connection.execute(select(HEAD.c.number, HEAD.c.digest)).one()
    found = chain.verify((line_of(row) for row in rows), entries, (number, digest))
    if not found.holds:
        raise IntegrityError(f"the ledger does not verify ({found.problems[0]}): restore a copy that verifies, then migrate it.")
    standings: dict[str, RequestStanding] = {}
    for row in rows:
        event = parse_line(line_of(row))
        known = standings.get(event.request)
        standings[event.request] = states.begin(event) if known is None else states.follow(known, event)
    return entries, standings


def _write(connection: Connection, one: Renamed, by: str, now: datetime) -> None:
    turn, state = take_turn(connection, now), one.standing.state
    event = turn.event("named", one.id, state, state, by, {"filing": one.filing.digest(), "position": one.position})
    after = states.follow(one.standing, event)
    turn.write(event)
    connection.execute(update(REQUESTS).where(REQUESTS.c.id == one.id).values(**asdict(chain.columns(one.id, one.filing, after))))
