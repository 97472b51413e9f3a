"""Read requests from the ledger; their columns must agree with their events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, func, select

from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence import states
from erasediff.evidence.chain import Entry, Line, check_entry, parse_line
from erasediff.evidence.database import EVENTS, REQUESTS
from erasediff.evidence.states import RequestStanding
from erasediff.records.requests import Filing, RequestFacts

_ID = re.compile(r"r-[0-9a-f]{16}")  # an input of another form is never quoted: it may be a name


class StoredRequest(NamedTuple):
    """A request from the ledger: its row, its filing, and the standing that follows from its events."""

    entry: Entry
    filing: Filing
    standing: RequestStanding

    def facts(self) -> RequestFacts:
        """The facts that others may know."""
        standing, filing = self.standing, self.filing
        return RequestFacts(
            id=self.entry.id,
            regime=filing.regime,
            scope=filing.scope,
            erasure=filing.erasure,
            clocks=standing.clocks,
            state=standing.state,
            unchecked=standing.unchecked,
            held=bool(standing.holds),
            holds=tuple(sorted(standing.holds)),
            verdict=standing.verdict,
            waiting=standing.waiting,
            approvals=standing.approvals,
            ledger_head=standing.head,
        )


def read_known(connection: Connection, wanted: ColumnElement[bool]) -> list[StoredRequest]:
    """The matching requests, earliest deadline first, then in order of filing.

    Raises:
        IntegrityError: a request's columns do not follow from its events.
    """
    came = select(func.min(EVENTS.c.number)).where(EVENTS.c.request == REQUESTS.c.id).scalar_subquery()
    query = select(REQUESTS).where(wanted).order_by(REQUESTS.c.due, came, REQUESTS.c.id)
    entries = [entry_of(row) for row in connection.execute(query)]
    events = select(EVENTS).where(EVENTS.c.request.in_(select(query.subquery().c.id))).order_by(EVENTS.c.number)
    standings: dict[str, RequestStanding] = {}
    with _as_damage():
        for row in connection.execute(events):
            event = parse_line(line_of(row))
            known = standings.get(event.request)
            standings[event.request] = states.begin(event) if known is None else states.follow(known, event)
        return [_consistent(entry, standings.get(entry.id)) for entry in entries]


def read_one(connection: Connection, id: str) -> StoredRequest:
    """The request of this id.

    Raises:
        BadInput: there is none.
        IntegrityError: see :func:`read_known`.
    """
    if not _ID.fullmatch(id):
        raise BadInput("this is not a request's id, which is r- and 16 hex digits: list them with `erasediff request list`.")
    found = read_known(connection, REQUESTS.c.id == id)
    if not found:
        raise BadInput(f"the ledger has no request {id}: list them with `erasediff request list`.")
    return found[0]


def entry_of(row: Row[Any]) -> Entry:
    """A row of the requests' table."""
    return Entry(**row._mapping)


def line_of(row: Row[Any]) -> Line:
    """A row of the events' table."""
    return Line(**row._mapping)


def _consistent(entry: Entry, standing: RequestStanding | None) -> StoredRequest:
    problems = check_entry(entry, standing)
    if problems or standing is None:
        raise BadInput(problems[0])
    return StoredRequest(entry, Filing.parse_json(entry.filing, f"the filing of {entry.id}"), standing)


@contextmanager
def _as_damage() -> Iterator[None]:
    """Turn inconsistencies in the ledger into an IntegrityError: they are not the user's mistake."""
    try:
        yield
    except BadInput as error:
        raise IntegrityError(f"the ledger was tampered with or is damaged: {error} Verify it with `erasediff status`, and restore a copy.") from None
