"""The state machine of requests: a pure function from a standing and an event to the next standing.

The same function checks new events and verifies old ones, so the ledger never accepts an event that its verification would reject.

    RECEIVED ─► VERIFIED ─► LOCATED ─► ACCEPTED ─► SUPPRESSED ─► BATCHED ─► ERASED ─► GATED ─► APPROVED ─┐
                     └► NOT_FOUND └► REFUSED    │      ▲ ▲           └─────────┴────────┴─────────┘      │
                                  └► LEGAL_HOLD ┴──────┘ └──────── sent back, for the next batch         │
                              CLOSED ◄─ CERTIFIED ◄─ PURGED ◄─ PURGING ◄─ ROLLED_OUT ◄───────────────────┘

A legal hold is a flag. It stops only the purge and the moves that confirm the purge.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from erasediff.errors import BadInput
from erasediff.records.core import Verdict
from erasediff.records.requests import Approval, Clocks, Event, Reason, State

S = State


class Transition(NamedTuple):
    """One row of the table: an event of this kind may take a request from ``before`` to ``after``."""

    kind: str
    before: State
    after: State


def _moves(kind: str, before: tuple[State, ...], after: tuple[State, ...]) -> set[Transition]:
    return {Transition(kind, a, b) for a in before for b in after}


TABLE: frozenset[Transition] = frozenset(
    _moves("advanced", (S.RECEIVED,), (S.VERIFIED, S.REFUSED))
    | _moves("advanced", (S.VERIFIED,), (S.LOCATED, S.NOT_FOUND, S.REFUSED))
    | _moves("advanced", (S.LOCATED,), (S.ACCEPTED, S.REFUSED))
    | _moves("advanced", (S.LEGAL_HOLD,), (S.ACCEPTED, S.REFUSED, S.SUPPRESSED))
    | _moves("advanced", (S.ACCEPTED,), (S.SUPPRESSED,))
    | _moves("advanced", (S.SUPPRESSED,), (S.BATCHED,))
    | _moves("advanced", (S.BATCHED,), (S.ERASED,))
    | _moves("advanced", (S.ERASED,), (S.GATED,))
    | _moves("advanced", (S.BATCHED, S.ERASED, S.GATED, S.APPROVED), (S.SUPPRESSED,))
    | _moves("advanced", (S.GATED, S.APPROVED), (S.ROLLED_OUT,))
    | _moves("advanced", (S.ROLLED_OUT,), (S.PURGING,))
    | _moves("advanced", (S.PURGING,), (S.PURGED,))
    | _moves("advanced", (S.PURGED,), (S.CERTIFIED,))
    | _moves("advanced", (S.CERTIFIED, S.REFUSED, S.NOT_FOUND), (S.CLOSED,))
    | _moves("advanced", (S.RECEIVED, S.VERIFIED, S.LOCATED, S.LEGAL_HOLD, S.ACCEPTED, S.SUPPRESSED), (S.WITHDRAWN,))
    | _moves("approved", (S.GATED,), (S.GATED, S.APPROVED))
    | _moves("approved", (S.APPROVED,), (S.APPROVED,))
    | _moves("waiting", (S.PURGING,), (S.PURGING,))
    | _moves("held", (S.LOCATED,), (S.LEGAL_HOLD,))
    | _moves("released", (S.LEGAL_HOLD,), (S.LOCATED,))
    | {Transition("held", state, state) for state in S if state not in (S.LOCATED, S.CLOSED, S.WITHDRAWN)}
    | {Transition("released", state, state) for state in S if state not in (S.LOCATED, S.CLOSED, S.WITHDRAWN)}
    | {Transition(kind, state, state) for kind in ("extended", "confirmed") for state in S if state not in (S.CLOSED, S.WITHDRAWN)}
    | {Transition("named", state, state) for state in S}
)

STOPPED_BY_A_HOLD = frozenset({(S.ROLLED_OUT, S.PURGING), (S.PURGING, S.PURGED), (S.PURGED, S.CERTIFIED), (S.CERTIFIED, S.CLOSED)})
UNFULFILLED = frozenset({S.REFUSED, S.NOT_FOUND, S.WITHDRAWN})
"""Final states without an erasure: the same content may be filed again. A fulfilled request stays the only one."""
TO_ERASE = frozenset({S.ACCEPTED, S.SUPPRESSED})

HOLDS = frozenset({Reason.LITIGATION, Reason.AUTHORITY_ORDER, Reason.AUDIT})
EXTENSIONS = frozenset({Reason.COMPLEX, Reason.MANY_REQUESTS})
WAITS = frozenset({Reason.STORE_UNREACHABLE, Reason.OBJECT_LOCK, Reason.BACKUP_CYCLE, Reason.SHARED_CONTENT})
REFUSALS = frozenset(
    {
        Reason.IDENTITY_NOT_SHOWN,
        Reason.UNFOUNDED,
        Reason.EXCESSIVE,
        Reason.LEGAL_OBLIGATION,
        Reason.LEGAL_CLAIMS,
        Reason.PUBLIC_INTEREST,
        Reason.EXPRESSION,
        Reason.EXEMPT,
    }
)
WITHDRAWALS = frozenset({Reason.ASKED_BACK, Reason.FILED_IN_ERROR})
RETURNS = frozenset(
    {
        Reason.GATE_FAILED,
        Reason.GATE_INCONCLUSIVE,
        Reason.NOT_APPROVED,
        Reason.NOT_EXPORTED,
        Reason.ROLLED_BACK,
        Reason.RUN_FAILED,
        Reason.BATCH_REFUSED,
    }
)


@dataclass(frozen=True)
class RequestStanding:
    """The state that follows from a request's events; ``head`` is the digest of the last event."""

    filing: str
    state: State
    clocks: Clocks
    head: str
    holds: frozenset[Reason] = frozenset()
    verdict: Verdict | None = None
    waiting: Reason | None = None
    approvals: tuple[Approval, ...] = ()
    named: bool = False
    """Whether the request told its class by a position, and a migration has named it."""
    unchecked: bool = False
    live: bool = True
    """Whether filing the same content returns this request."""
    ended: datetime | None = None


def begin(event: Event) -> RequestStanding:
    """The standing after a request's first event.

    Raises:
        BadInput: it cannot be a first event.
    """
    if event.kind != "received" or event.before is not None or event.after is not S.RECEIVED:
        raise BadInput(f"request {event.request} does not begin with its receipt.")
    facts = event.facts
    clocks = {name: facts.get(name) for name in ("received", "confirm_by", "due", "zone")}
    parsed = Clocks.parse(clocks, f"the receipt of {event.request}")
    if parsed.received > event.at:
        raise BadInput(f"request {event.request} cannot be received in the future: correct the date of its receipt.")
    return RequestStanding(str(facts.get("filing")), S.RECEIVED, parsed, event.digest(), unchecked=facts.get("unchecked") is True)


def follow(standing: RequestStanding, event: Event) -> RequestStanding:
    """The standing after one more event.

    Raises:
        BadInput: the event may not follow; the message says why, and which may.
    """
    if event.before is not standing.state:
        raise BadInput(f"request {event.request} is {standing.state}, not {event.before}: check it with `erasediff request show`.")
    check_move(standing, event)
    check_facts(event)
    return replace(_CHANGES[event.kind](standing, event), state=event.after, head=event.digest())


def check_move(standing: RequestStanding, event: Event) -> None:
    """Refuse a move that is not in the table, or that a hold stops.

    Raises:
        BadInput: see above.
    """
    if Transition(event.kind, standing.state, event.after) not in TABLE or event.kind not in _CHANGES:
        raise BadInput(_not_in_the_table(standing.state, event))
    if standing.holds and (standing.state, event.after) in STOPPED_BY_A_HOLD:
        held = ", ".join(sorted(standing.holds))
        raise BadInput(f"request {event.request} is under a legal hold ({held}), so its data must stay: release it with `erasediff request release`.")


def _not_in_the_table(state: State, event: Event) -> str:
    moves = {move for move in TABLE if move.before is state and move.after is not state}
    onward = sorted(move.after if move.kind == "advanced" else f"{move.after} when it is {move.kind}" for move in moves)
    may = f"from there it can become {', '.join(onward)}" if onward else "this state is final"
    what = f"become {event.after} when it is {event.kind}" if event.after is not state else f"be {event.kind}"
    return f"request {event.request} is {state} and cannot {what}: {may}."


_DIGEST = re.compile(r"[0-9a-f]{64}")
_FORMS: dict[str, re.Pattern[str]] = {
    "reason": re.compile(r"[a-z_]{1,32}"),
    "verdict": re.compile(r"[A-Z]{4,12}"),
    "run": re.compile(r"[A-Za-z0-9._-]{1,64}"),
    "attempt": re.compile(r"[0-9]{1,9}"),
    "epoch": re.compile(r"[0-9]{1,9}"),
}
_KEYS: dict[str, frozenset[str]] = {
    "held": frozenset({"reason"}),
    "released": frozenset({"reason"}),
    "waiting": frozenset({"reason"}),
    "extended": frozenset({"reason", "due", "noticed"}),
    "confirmed": frozenset(),
    "named": frozenset({"filing", "position"}),
    "approved": frozenset({"approver", "signed_at", "key_id", "signature"}),
}


def check_facts(event: Event) -> None:
    """Allow only the facts of this kind of event, so that no fact can hold a person's name.

    An advance may have a reason, a verdict, a run, an attempt, an epoch, and digests, whose names end in ``_sha256``.

    Raises:
        BadInput: the event has another fact.
    """
    for name, value in event.facts.items():
        if event.kind != "advanced":
            known = name in _KEYS[event.kind]
        else:
            form = _DIGEST if name.endswith("_sha256") else _FORMS.get(name)
            known = form is not None and not isinstance(value, bool) and form.fullmatch(str(value)) is not None
        if not known:
            raise BadInput(f"the fact {name!r} of this form is not allowed for the event '{event.kind}': give only digests, numbers and codes.")


def reason_of(event: Event, allowed: frozenset[Reason]) -> Reason:
    """The event's reason.

    Raises:
        BadInput: it is missing or not allowed here.
    """
    found = event.facts.get("reason")
    if found not in allowed:
        raise BadInput(f"the event ({event.kind}, {event.after}) needs a reason: use one of {', '.join(sorted(allowed))}.")
    return Reason(str(found))


def _advanced(standing: RequestStanding, event: Event) -> RequestStanding:
    """Advance. A request that is sent back loses its verdict and its approvals: the next model is another one."""
    match event.after:
        case S.REFUSED:
            reason_of(event, REFUSALS)
        case S.WITHDRAWN:
            reason_of(event, WITHDRAWALS)
        case S.SUPPRESSED if standing.state not in (S.ACCEPTED, S.LEGAL_HOLD):
            reason_of(event, RETURNS)
            return replace(standing, verdict=None, approvals=())
        case S.GATED:
            return replace(standing, verdict=_verdict_of(event))
        case S.ROLLED_OUT if standing.verdict is not Verdict.PASS:
            raise BadInput(f"the model of {event.request} did not pass the gate, so it cannot be rolled out: send the request back.")
        case S.PURGED:
            return replace(standing, waiting=None)
        case _:
            pass
    ended = event.at if event.after in (S.CLOSED, S.WITHDRAWN) else None
    return replace(standing, ended=ended, live=standing.live and event.after not in UNFULFILLED)


def _verdict_of(event: Event) -> Verdict:
    verdict = event.facts.get("verdict")
    if verdict not in set(Verdict):
        raise BadInput(f"request {event.request} cannot become GATED without the fact 'verdict': give PASS, FAIL or INCONCLUSIVE.")
    return Verdict(str(verdict))


def _held(standing: RequestStanding, event: Event) -> RequestStanding:
    return replace(standing, holds=standing.holds | {reason_of(event, HOLDS)})


def _released(standing: RequestStanding, event: Event) -> RequestStanding:
    reason = reason_of(event, HOLDS)
    if reason not in standing.holds:
        raise BadInput(f"request {event.request} has no hold with the reason {reason}: list its holds with `erasediff request show`.")
    left = standing.holds - {reason}
    if (standing.state, event.after) == (S.LEGAL_HOLD, S.LEGAL_HOLD) and not left:
        raise BadInput(f"request {event.request} cannot stay in LEGAL_HOLD without a hold.")
    if (standing.state, event.after) == (S.LEGAL_HOLD, S.LOCATED) and left:
        raise BadInput(f"request {event.request} is still held for {', '.join(sorted(left))}.")
    return replace(standing, holds=left)


def _extended(standing: RequestStanding, event: Event) -> RequestStanding:
    """Take the date from the event: it was computed once and told to the person, so later changes of time zone rules must not move it."""
    reason_of(event, EXTENSIONS)
    changed = {"due": event.facts.get("due"), "extended": True}
    clocks = Clocks.parse(standing.clocks.model_dump() | changed, f"the extension of {event.request}")
    noticed = Clocks.parse(standing.clocks.model_dump() | {"received": event.facts.get("noticed")}, f"the notice for {event.request}").received
    if standing.clocks.extended or clocks.due <= standing.clocks.due:
        raise BadInput(f"request {event.request} cannot be extended twice or to an earlier date.")
    if not standing.clocks.received <= noticed <= min(event.at, standing.clocks.due):
        raise BadInput(f"the notice for {event.request} must lie between its receipt and its due date, and not in the future: correct it.")
    return replace(standing, clocks=clocks)


def _confirmed(standing: RequestStanding, event: Event) -> RequestStanding:
    return replace(standing, clocks=standing.clocks.model_copy(update={"confirmed": True}))


def _named(standing: RequestStanding, event: Event) -> RequestStanding:
    """Take the filing with the name of the class for the one with its position: a migration does so once, and the events before stay as they are."""
    filing = str(event.facts.get("filing"))
    if standing.named or not _DIGEST.fullmatch(filing) or not _FORMS["epoch"].fullmatch(str(event.facts.get("position"))):
        raise BadInput(f"the class of request {event.request} was named before, or the event has no digest and no position.")
    return replace(standing, filing=filing, named=True)


def _approved(standing: RequestStanding, event: Event) -> RequestStanding:
    if standing.verdict is not Verdict.PASS:
        raise BadInput(f"the model of {event.request} did not pass the gate, so it cannot be approved: send the request back to the next batch.")
    facts = event.facts
    document = {"by": facts.get("approver"), "at": facts.get("signed_at"), "key_id": facts.get("key_id"), "signature": facts.get("signature")}
    approval = Approval.parse(document, f"the approval of {event.request}")
    if approval.at > event.at:
        raise BadInput(f"the approval of {event.request} is dated in the future: correct the approver's clock.")
    if any(approval.by == other.by or approval.key_id == other.key_id for other in standing.approvals):
        raise BadInput(f"{approval.by} or the same key has already approved {event.request}: another person with their own key must approve it.")
    return replace(standing, approvals=(*standing.approvals, approval))


def _waiting(standing: RequestStanding, event: Event) -> RequestStanding:
    return replace(standing, waiting=reason_of(event, WAITS))


_CHANGES: dict[str, Callable[[RequestStanding, Event], RequestStanding]] = {
    "advanced": _advanced,
    "approved": _approved,
    "waiting": _waiting,
    "held": _held,
    "released": _released,
    "extended": _extended,
    "confirmed": _confirmed,
    "named": _named,
}
