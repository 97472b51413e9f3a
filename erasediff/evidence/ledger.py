"""The ledger of requests: an append-only chain of events, and a row for each request.

Events are the truth; a request's row only helps to find it and must follow from its events. Every change is one transaction: lock the ledger, read
the request's events, check with :mod:`states` that the new event may follow, write it, and update the row by compare-and-set.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, insert, or_, select, true, update

from erasediff.errors import AwaitingApproval, Conflict
from erasediff.evidence import chain, clocks, states
from erasediff.evidence.chain import Entry
from erasediff.evidence.database import EVENTS, HEAD, REQUESTS, LedgerDatabase
from erasediff.evidence.stored import StoredRequest, entry_of, line_of, read_known, read_one
from erasediff.evidence.turn import check_clock, take_turn
from erasediff.records.requests import Approval, DueDate, Event, Filing, Reason, RequestFacts, State, Terms, Verification


class Plan(NamedTuple):
    """An event to write."""

    kind: str
    after: State
    facts: Mapping[str, str | int | bool]


class Ledger:
    """A ledger. It keeps no connection, so it may be shared and forked."""

    def __init__(self, database: LedgerDatabase, terms: Terms) -> None:
        """Use a database whose tables exist."""
        self.database = database
        self.terms = terms

    @classmethod
    def open(cls, where: str | Path, terms: Terms | None = None) -> Ledger:
        """Open the ledger at a URL or in a workdir; create it if it is missing.

        Raises:
            BadInput: the address is not valid, or the database does not answer or has another version.
        """
        database = LedgerDatabase(where)
        database.create()
        return cls(database, terms or Terms())

    @classmethod
    def existing(cls, where: str | Path, terms: Terms | None = None) -> Ledger:
        """Open an existing ledger at a URL or in a workdir.

        Raises:
            BadInput: it does not exist; else as :meth:`open`.
        """
        database = LedgerDatabase(where)
        database.check()
        return cls(database, terms or Terms())

    def file(self, filing: Filing, by: str, now: datetime, received: datetime | None = None, unchecked: bool = False) -> RequestFacts:
        """File a request; if one with the same content is under way or fulfilled, return that one.

        Args:
            filing: the request's content.
            by: who files it.
            now: the time.
            received: when it was received, if before ``now``. Deadlines count from there.
            unchecked: nobody looked whether a registered model has the class; the request says so for ever.
        """
        digest = filing.digest()
        with self.database.writing() as connection:
            turn = take_turn(connection, now)
            found = read_known(connection, REQUESTS.c.live == digest)
            if found:
                return found[0].facts()
            begun = clocks.start(filing.regime, received or turn.at, self.terms)
            facts: dict[str, str | bool] = {"filing": digest, "zone": begun.zone}
            facts |= _times(received=begun.received, confirm_by=begun.confirm_by, due=begun.due)
            if unchecked:
                facts["unchecked"] = True
            event = turn.event("received", f"r-{secrets.token_hex(8)}", None, State.RECEIVED, by, facts)
            standing = states.begin(event)
            known = StoredRequest(chain.columns(event.request, filing, standing), filing, standing)
            turn.write(event)
            connection.execute(insert(REQUESTS).values(**asdict(known.entry)))
            return known.facts()

    def advance(
        self, id: str, expected: State, to: State, by: str, now: datetime, facts: Mapping[str, str | int | bool] | None = None
    ) -> RequestFacts:
        """Move a request from the state that the caller expects to another.

        Of several concurrent callers one succeeds. GATED needs the fact ``verdict``; REFUSED, WITHDRAWN and a move back to SUPPRESSED need a
        ``reason``; the names of digests end in ``_sha256``.

        Raises:
            Conflict: it is no longer in the state ``expected``.
            BadInput: the table has no such move, a hold stops it, or a fact is missing or not valid.
        """

        def plan(known: StoredRequest) -> Plan:
            if known.standing.state is not expected:
                raise Conflict(f"request {id} is {known.standing.state} and no longer {expected}: another process was first, or it is done.")
            if (expected, to) == (State.GATED, State.ROLLED_OUT) and self.terms.approvals:
                raise AwaitingApproval(
                    f"request {id} needs {self.terms.approvals} approvals and has {len(known.standing.approvals)}: "
                    "ask the approvers to run `erasediff approve`, then run the same command again."
                )
            return Plan("advanced", to, facts or {})

        return self._change(id, by, now, plan)

    def hold(self, id: str, reason: Reason, by: str, now: datetime) -> RequestFacts:
        """Put a legal hold on the data; a LOCATED request becomes LEGAL_HOLD. There is at most one hold per reason."""

        def plan(known: StoredRequest) -> Plan | None:
            state = known.standing.state
            after = State.LEGAL_HOLD if state is State.LOCATED else state
            return None if reason in known.standing.holds else Plan("held", after, {"reason": reason.value})

        return self._change(id, by, now, plan)

    def release(self, id: str, reason: Reason, by: str, now: datetime) -> RequestFacts:
        """Release the hold with a reason; a request in LEGAL_HOLD without another hold becomes LOCATED."""

        def plan(known: StoredRequest) -> Plan:
            state, left = known.standing.state, known.standing.holds - {reason}
            after = State.LOCATED if state is State.LEGAL_HOLD and not left else state
            return Plan("released", after, {"reason": reason.value})

        return self._change(id, by, now, plan)

    def extend(self, id: str, reason: Reason, noticed: datetime, by: str, now: datetime) -> RequestFacts:
        """Extend the deadline once; ``noticed`` is when the person was told the reason."""

        def plan(known: StoredRequest) -> Plan:
            later = clocks.extended(known.filing.regime, known.standing.clocks)
            return Plan("extended", known.standing.state, {"reason": reason.value, **_times(due=later.due, noticed=noticed)})

        return self._change(id, by, now, plan)

    def confirm(self, id: str, by: str, now: datetime) -> RequestFacts:
        """Record the confirmation of receipt, which the CCPA requires."""

        def plan(known: StoredRequest) -> Plan | None:
            return None if known.standing.clocks.confirmed else Plan("confirmed", known.standing.state, {})

        return self._change(id, by, now, plan)

    def refuse(self, id: str, reason: Reason, by: str, now: datetime) -> RequestFacts:
        """Refuse a request; its deadline stays until it is closed."""
        return self._change(id, by, now, lambda _: Plan("advanced", State.REFUSED, {"reason": reason.value}))

    def withdraw(self, id: str, reason: Reason, by: str, now: datetime) -> RequestFacts:
        """End a request that was withdrawn before its erasure began."""
        return self._change(id, by, now, lambda _: Plan("advanced", State.WITHDRAWN, {"reason": reason.value}))

    def wait(self, id: str, reason: Reason, by: str, now: datetime) -> RequestFacts:
        """Record why a purge cannot finish yet."""

        def plan(known: StoredRequest) -> Plan | None:
            return None if known.standing.waiting is reason else Plan("waiting", known.standing.state, {"reason": reason.value})

        return self._change(id, by, now, plan)

    def approve(self, id: str, approval: Approval, now: datetime | None = None) -> RequestFacts:
        """Add an approval of the request's model; with enough approvals the request becomes APPROVED.

        The caller checks the signature before.
        """

        def plan(known: StoredRequest) -> Plan | None:
            standing = known.standing
            if approval in standing.approvals:
                return None
            enough = standing.state is not State.GATED or len(standing.approvals) + 1 >= self.terms.approvals
            signed = {"approver": approval.by, **_times(signed_at=approval.at), "key_id": approval.key_id, "signature": approval.signature}
            return Plan("approved", State.APPROVED if enough else State.GATED, signed)

        return self._change(id, approval.by, now or datetime.now(UTC), plan)

    def facts(self, id: str) -> RequestFacts:
        """The facts of a request.

        Raises:
            BadInput: there is no such request.
            IntegrityError: its columns do not follow from its events.
        """
        with self.database.reading() as connection:
            return read_one(connection, id).facts()

    def requests(self, states: Iterable[State] | None = None) -> tuple[RequestFacts, ...]:
        """All requests, or those in some states, earliest deadline first, then in order of filing."""
        wanted = true() if states is None else REQUESTS.c.state.in_([state.value for state in states])
        with self.database.reading() as connection:
            return tuple(known.facts() for known in read_known(connection, wanted))

    def events(self, id: str | None = None) -> tuple[Event, ...]:
        """All events, or those of a request, in order."""
        wanted = true() if id is None else EVENTS.c.request == id
        with self.database.reading() as connection:
            rows = connection.execute(select(EVENTS).where(wanted).order_by(EVENTS.c.number)).all()
        return tuple(chain.parse_line(line_of(row)) for row in rows)

    def due(self, now: datetime, within: timedelta) -> tuple[DueDate, ...]:
        """The deadlines until ``now + within``, including overdue ones, earliest first."""
        last = now + within
        open_ = REQUESTS.c.state.not_in([state.value for state in clocks.SETTLED])
        soon = or_(REQUESTS.c.due <= int(last.timestamp()), REQUESTS.c.confirm_by <= int(last.timestamp()))
        with self.database.reading() as connection:
            check_clock(connection, now)
            found = read_known(connection, open_ & soon)
        owed = [deadline for known in found for deadline in clocks.deadlines(known.facts(), now) if deadline.at <= last]
        return tuple(sorted(owed, key=lambda deadline: (deadline.at, deadline.request, deadline.what)))

    def verify(self, quoted: Iterable[str] = ()) -> Verification:
        """Verify the whole ledger; ``quoted`` are digests of events from certificates."""
        with self.database.reading() as connection:
            number, digest = connection.execute(select(HEAD.c.number, HEAD.c.digest)).one()
            rows = connection.execute(select(EVENTS).order_by(EVENTS.c.number).execution_options(yield_per=1000))
            lines = (line_of(row) for row in rows)
            entries = [entry_of(row) for row in connection.execute(select(REQUESTS)).all()]
            return chain.verify(lines, entries, (number, digest), quoted)

    def _change(self, id: str, by: str, now: datetime, plan: Callable[[StoredRequest], Plan | None]) -> RequestFacts:
        """Write the planned event and update the row; do nothing if there is no plan."""
        with self.database.writing() as connection:
            turn = take_turn(connection, now)
            known = read_one(connection, id)
            planned = plan(known)
            if planned is None:
                return known.facts()
            event = turn.event(planned.kind, id, known.standing.state, planned.after, by, planned.facts)
            standing = states.follow(known.standing, event)
            turn.write(event)
            after = StoredRequest(chain.columns(id, known.filing, standing), known.filing, standing)
            _compare_and_set(connection, known.entry, after.entry)
            return after.facts()


def _compare_and_set(connection: Connection, before: Entry, after: Entry) -> None:
    as_read = (REQUESTS.c.id == before.id) & (REQUESTS.c.state == before.state) & (REQUESTS.c.head == before.head)
    if connection.execute(update(REQUESTS).where(as_read).values(**asdict(after))).rowcount != 1:
        raise Conflict(f"request {before.id} was changed by another process: check it with `erasediff request show`.")


def _times(**instants: datetime | None) -> dict[str, str]:
    """Instants for an event: UTC in ISO 8601; ``None`` is left out."""
    return {name: at.astimezone(UTC).isoformat().replace("+00:00", "Z") for name, at in instants.items() if at is not None}
