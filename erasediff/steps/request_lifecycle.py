"""Move requests through the ledger: an attempt takes them when it opens, and its steps advance them.

Without a ledger, an attempt has no requests. Every move is a compare-and-set in the ledger, and a step that runs again finds its move made, so a
killed run can continue.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of, requests_in
from erasediff.attempts.workdir import Workdir
from erasediff.errors import AwaitingApproval, BadInput, Conflict
from erasediff.evidence.approvals import approve, check_approval, consent
from erasediff.evidence.database import FILE
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.served_rules import suppress
from erasediff.evidence.signing import check_can_sign
from erasediff.evidence.states import TO_ERASE
from erasediff.records.base import Record
from erasediff.records.core import ErasureRequest, verdict_in
from erasediff.records.requests import ERASED_SCOPE, Reason, RequestFacts, State
from erasediff.records.settings import LedgerSettings, RollOutSettings, SigningSettings
from erasediff.steps.table import Facts, Step

if TYPE_CHECKING:
    from erasediff.evidence.signing import SigningKey

BY = "erasediff"
"""The ledger's actor for moves that a pipeline makes."""
UNDECIDED = frozenset({State.RECEIVED, State.VERIFIED, State.LOCATED, State.LEGAL_HOLD})
UNDER_WAY = frozenset({State.BATCHED, State.ERASED, State.GATED, State.APPROVED})
FULFILLED = frozenset({State.ROLLED_OUT, State.PURGING, State.PURGED, State.CERTIFIED, State.CLOSED})
"""States in which the deployed model has forgotten the class."""


def open_ledger(workdir: Workdir) -> Ledger | None:
    """The configured ledger, or the workdir's; ``None`` if there is neither.

    Raises:
        BadInput: the configured ledger does not answer or does not exist.
    """
    settings = LedgerSettings.load()
    where = settings.where(workdir.root)
    begun = where != workdir.root or (workdir.root / FILE).is_file()
    return Ledger.existing(where, settings.terms()) if begun else None


def class_requests(ledger: Ledger, states: Iterable[State]) -> tuple[RequestFacts, ...]:
    """The requests in some states that an erasure of classes fulfils; one for a concept or for instances must not be answered by it."""
    return tuple(facts for facts in ledger.requests(states) if facts.scope == ERASED_SCOPE)


def open_requests(workdir: Workdir, dataset: str) -> tuple[RequestFacts, ...]:
    """The open requests of a dataset, earliest deadline first: accepted, not yet certified, and not held."""
    ledger = open_ledger(workdir)
    waiting = () if ledger is None else class_requests(ledger, TO_ERASE | UNDER_WAY | FULFILLED - {State.CERTIFIED, State.CLOSED})
    return tuple(facts for facts in waiting if facts.erasure.dataset == dataset and not facts.held)


def unanswered_in_words(attempt: Attempt) -> str | None:
    """A sentence about the open requests of the dataset that this run has not taken, and how they are answered; ``None`` if there are none.

    A log keeps it, so it counts them and names no class.
    """
    ledger, asked, dataset = open_ledger(attempt.workdir), requests_in(attempt), attempt.plan().request.dataset
    open_ones = () if ledger is None else class_requests(ledger, UNDECIDED | TO_ERASE | UNDER_WAY)
    left = [facts for facts in open_ones if facts.erasure.dataset == dataset and not (facts.state in UNDER_WAY and facts.erasure in asked)]
    if not left:
        return None
    counts = Counter("held" if facts.held else str(facts.state) for facts in left)
    return (
        f"this run leaves open requests for {dataset} unanswered ({', '.join(f'{count} {state}' for state, count in sorted(counts.items()))}): "
        "`erasediff process` answers them once each is accepted (`erasediff request verify`, `locate`, `accept`) and not held."
    )


def unreported_requests(workdir: Workdir, dataset: str) -> tuple[ErasureRequest, ...]:
    """The requests of an attempt that was killed before it wrote its outcome."""
    if workdir.outcome.exists() or not workdir.current.is_file():
        return ()
    run = workdir.attempt()
    here = run.plan().request.dataset == dataset and any(answered_requests(one) for one in batch_of(run))
    return requests_in(run) if here else ()


def take_requests(attempt: Attempt) -> None:
    """Take all requests for this attempt's class that are not held: waiting ones, and those that an earlier attempt left unfulfilled."""
    ledger = open_ledger(attempt.workdir)
    if ledger is None:
        return
    waiting = [facts for facts in class_requests(ledger, TO_ERASE | UNDER_WAY) if facts.erasure == attempt.plan().request and not facts.held]
    for facts in waiting:
        with contextlib.suppress(Conflict):  # another run was first
            _take_one(ledger, facts, attempt)


def _take_one(ledger: Ledger, facts: RequestFacts, attempt: Attempt) -> None:
    if facts.state in UNDER_WAY:
        if taken_by(ledger, facts.id) == attempt.name:
            return
        ledger.advance(facts.id, facts.state, State.SUPPRESSED, BY, _now(), {"reason": Reason.RUN_FAILED.value})
    if facts.state is State.ACCEPTED:
        suppress_request(attempt.workdir, ledger, facts, BY)
    ledger.advance(facts.id, State.SUPPRESSED, State.BATCHED, BY, _now(), {"run": attempt.name, "attempt": attempt.plan().attempt})


def suppress_request(workdir: Workdir, ledger: Ledger, facts: RequestFacts, by: str) -> RequestFacts:
    """Block the label of a request in serving, and record that in the ledger."""
    suppress(workdir, facts.erasure.label, RollOutSettings.load())
    return ledger.advance(facts.id, facts.state, State.SUPPRESSED, by, _now())


def sent_back_for(workdir: Workdir, id: str) -> Reason | None:
    """Why a request was last sent back, if it was."""
    ledger = open_ledger(workdir)
    events = () if ledger is None else ledger.events(id)
    reasons = [event.facts.get("reason") for event in events if event.after is State.SUPPRESSED and event.kind == "advanced"]
    return Reason(str(reasons[-1])) if reasons and reasons[-1] else None


def send_back(attempt: Attempt, reason: Reason) -> None:
    """Send the requests of an attempt back to wait for the next batch."""
    _move(attempt, (State.GATED, State.APPROVED), State.SUPPRESSED, {"reason": reason.value})


def taken_by(ledger: Ledger, id: str) -> str | None:
    """The name of the attempt that last took a request."""
    runs = [event.facts.get("run") for event in ledger.events(id) if event.after is State.BATCHED and event.kind == "advanced"]
    return None if not runs else str(runs[-1])


def _answering(attempt: Attempt, *states: State) -> Iterator[tuple[Ledger, RequestFacts]]:
    """The attempt's requests in some states, each with its ledger, earliest deadline first."""
    ledger = open_ledger(attempt.workdir)
    for facts in () if ledger is None else class_requests(ledger, states):
        if ledger is not None and facts.erasure == attempt.plan().request and taken_by(ledger, facts.id) == attempt.name:
            yield ledger, facts


def answered_requests(attempt: Attempt) -> tuple[RequestFacts, ...]:
    """The attempt's requests, without those that were sent back, earliest deadline first."""
    return tuple(facts for _, facts in _answering(attempt, *UNDER_WAY, *FULFILLED))


def check_approved(attempt: Attempt) -> None:
    """Refuse a release whose requests lack approvals, or whose certificate nobody could sign.

    Raises:
        AwaitingApproval: there are fewer approvals than the settings require.
        BadInput: an approval is not by a configured approver, or the signing key has expired.
        IntegrityError: an approval is for another model.
    """
    approvers = LedgerSettings.load().approvers
    for ledger, facts in _answering(attempt, State.GATED, State.APPROVED):
        try:
            check_can_sign(SigningSettings.load(), _now())
        except BadInput as error:
            raise BadInput(f"request {facts.id} is owed a certificate, and {error}") from None
        if len(facts.approvals) < ledger.terms.approvals:
            raise AwaitingApproval(
                f"request {facts.id} needs {ledger.terms.approvals} approvals and has {len(facts.approvals)}: "
                "ask the approvers to run `erasediff approve`, then run the same command again."
            )
        for approval in facts.approvals:
            check_approval(attempt, facts.id, approval, approvers)


def give_approval(workdir: Workdir, id: str, by: str, key: SigningKey) -> RequestFacts:
    """Approve the model of a request after its gate.

    Raises:
        BadInput: no attempt has taken the request, the approver filed it, or their key is not the configured one.
    """
    ledger = open_ledger(workdir)
    if ledger is None:
        raise BadInput(f"there is no ledger in {workdir.root}: check --workdir, or set ERASEDIFF_LEDGER.")
    name = taken_by(ledger, id)
    if name is None:
        raise BadInput(f"no attempt has taken request {id} yet: there is no model to approve.")
    if ledger.events(id)[0].by == by:
        raise BadInput(f"{by} filed request {id}: another person must approve it.")
    run, at = workdir.attempt(name), _now().replace(microsecond=0)
    approval = approve(consent(run, id, by, at), key)
    check_approval(run, id, approval, LedgerSettings.load().approvers)
    return ledger.approve(id, approval, _now())


def move_requests(attempt: Attempt, row: Step) -> None:
    """Advance the attempt's requests after a step, as its row in the table says; most steps change nothing."""
    if row.move is not None:
        _move(attempt, row.move.before, row.move.after, row.move.facts(attempt))
    if row.sent_back and row.makes is not None and (reason := row.sent_back.get(verdict_in(attempt.need(row.makes)))) is not None:
        send_back(attempt, reason)


def begin_purge(attempt: Attempt) -> tuple[str, ...]:
    """Move the requests to PURGING and return their ids.

    Raises:
        BadInput: one of them is under a legal hold.
    """
    for _, facts in _answering(attempt, *FULFILLED):
        if facts.held:
            raise BadInput(
                f"request {facts.id} is under a legal hold ({', '.join(facts.holds)}), so its data must stay: "
                "release it with `erasediff request release`, then run the same command again."
            )
    _move(attempt, (State.ROLLED_OUT,), State.PURGING, {})
    return tuple(sorted(facts.id for _, facts in _answering(attempt, *FULFILLED)))


def finish_purge(attempt: Attempt, record: Record) -> None:
    """Move the requests to PURGED: all stores were checked."""
    _move(attempt, (State.PURGING,), State.PURGED, {"purge_sha256": record.digest()})


def mark_certified(attempt: Attempt, record: Record) -> None:
    """Move the requests to CERTIFIED."""
    _move(attempt, (State.PURGED,), State.CERTIFIED, {"certificate_sha256": record.digest()})


def record_wait(attempt: Attempt, reason: Reason) -> None:
    """Record why the purge cannot finish yet."""
    for ledger, facts in _answering(attempt, State.PURGING):
        ledger.wait(facts.id, reason, BY, _now())


def _move(attempt: Attempt, before: tuple[State, ...], after: State, details: Facts) -> None:
    for ledger, facts in _answering(attempt, *before):
        ledger.advance(facts.id, facts.state, after, BY, _now(), details)


def _now() -> datetime:
    return datetime.now(UTC)
