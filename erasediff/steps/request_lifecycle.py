"""The requests that an attempt answers: taken when it is opened, and moved along the ledger as its steps end.

Where there is no ledger there are no requests, and an attempt answers nobody. Every move is the ledger's own compare-and-set, and a step that is
run again finds its move made, so a run that was killed anywhere goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of, requests_in
from erasediff.attempts.workdir import Workdir
from erasediff.errors import AwaitingApproval, BadInput, Conflict
from erasediff.evidence.approvals import approve, check_approval, consent
from erasediff.evidence.database import FILE
from erasediff.evidence.keys import check_can_sign
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.served_rules import suppress
from erasediff.evidence.states import TO_ERASE
from erasediff.records.base import Record
from erasediff.records.nouns import ErasureRequest, verdict_in
from erasediff.records.requests import Reason, RequestFacts, State
from erasediff.records.settings import LedgerSettings, RollOutSettings
from erasediff.records.signing import SigningSettings
from erasediff.steps.table import Facts, Step

if TYPE_CHECKING:
    from erasediff.evidence.signing import SigningKey

BY = "erasediff"
"""Who moves requests while a pipeline runs."""
UNDER_WAY = frozenset({State.BATCHED, State.ERASED, State.GATED, State.APPROVED})
FULFILLED = frozenset({State.ROLLED_OUT, State.PURGING, State.PURGED, State.CERTIFIED, State.CLOSED})
"""The model that serves has forgotten what was asked."""


def open_ledger(workdir: Workdir) -> Ledger | None:
    """The ledger that is set, or the workdir's if one was begun.

    Raises:
        BadInput: the one that is set does not answer, or there is none at its address.
    """
    settings = LedgerSettings.load()
    where = settings.where(workdir.root)
    begun = where != workdir.root or (workdir.root / FILE).is_file()
    return Ledger.existing(where, settings.terms()) if begun else None


def open_requests(workdir: Workdir, dataset: str) -> tuple[RequestFacts, ...]:
    """The requests that still ask something of a dataset's model and are not held, the earliest due first: to erase, roll out, purge or certify."""
    ledger = open_ledger(workdir)
    waiting = () if ledger is None else ledger.requests(TO_ERASE | UNDER_WAY | FULFILLED - {State.CERTIFIED, State.CLOSED})
    return tuple(facts for facts in waiting if facts.erasure.dataset == dataset and not facts.held)


def unreported_requests(workdir: Workdir, dataset: str) -> tuple[ErasureRequest, ...]:
    """What was certified by an attempt that was killed before it wrote its outcome."""
    if workdir.outcome.exists() or not workdir.current.is_file():
        return ()
    run = workdir.attempt()
    here = run.plan().request.dataset == dataset and any(answered_requests(one) for one in batch_of(run))
    return requests_in(run) if here else ()


def take_requests(attempt: Attempt) -> None:
    """Take every request for what this attempt erases that is not held: those that wait, and those that an earlier attempt did not fulfil.

    Raises:
        BadInput: there is no key that could sign their certificate, or it has ended.
    """
    ledger = open_ledger(attempt.workdir)
    if ledger is None:
        return
    waiting = [facts for facts in ledger.requests(TO_ERASE | UNDER_WAY) if facts.erasure == attempt.plan().request and not facts.held]
    if waiting:
        _check_can_certify(waiting[0])
    for facts in waiting:
        with contextlib.suppress(Conflict):  # another run was first
            _take_one(ledger, facts, attempt)


def _check_can_certify(facts: RequestFacts) -> None:
    try:
        check_can_sign(SigningSettings.load(), _now())
    except BadInput as error:
        raise BadInput(f"request {facts.id} is owed a certificate, and {error}") from None


def _take_one(ledger: Ledger, facts: RequestFacts, attempt: Attempt) -> None:
    if facts.state in UNDER_WAY:
        if taken_by(ledger, facts.id) == attempt.name:
            return
        ledger.advance(facts.id, facts.state, State.SUPPRESSED, BY, _now(), {"reason": Reason.RUN_FAILED.value})
    if facts.state is State.ACCEPTED:
        suppress_request(attempt.workdir, ledger, facts, BY)
    ledger.advance(facts.id, State.SUPPRESSED, State.BATCHED, BY, _now(), {"run": attempt.name, "attempt": attempt.plan().attempt})


def suppress_request(workdir: Workdir, ledger: Ledger, facts: RequestFacts, by: str) -> RequestFacts:
    """Let nobody have the label of a request from now on, and write down that this is so."""
    suppress(workdir, facts.erasure.label, RollOutSettings.load())
    return ledger.advance(facts.id, facts.state, State.SUPPRESSED, by, _now())


def sent_back_for(workdir: Workdir, id: str) -> Reason | None:
    """Why the last attempt that took a request has sent it back, if one did."""
    ledger = open_ledger(workdir)
    events = () if ledger is None else ledger.events(id)
    reasons = [event.facts.get("reason") for event in events if event.after is State.SUPPRESSED and event.kind == "advanced"]
    return Reason(str(reasons[-1])) if reasons and reasons[-1] else None


def send_back(attempt: Attempt, reason: Reason) -> None:
    """Let the requests of an attempt wait for the next batch, before anything is rolled out."""
    _move(attempt, (State.GATED, State.APPROVED), State.SUPPRESSED, {"reason": reason.value})


def taken_by(ledger: Ledger, id: str) -> str | None:
    """The attempt that took a request last."""
    runs = [event.facts.get("run") for event in ledger.events(id) if event.after is State.BATCHED and event.kind == "advanced"]
    return None if not runs else str(runs[-1])


def _answering(attempt: Attempt, *states: State) -> Iterator[tuple[Ledger, RequestFacts]]:
    """The requests in some states that this attempt took, each with its ledger, the earliest due first."""
    ledger = open_ledger(attempt.workdir)
    for facts in () if ledger is None else ledger.requests(states):
        if ledger is not None and facts.erasure == attempt.plan().request and taken_by(ledger, facts.id) == attempt.name:
            yield ledger, facts


def answered_requests(attempt: Attempt) -> tuple[RequestFacts, ...]:
    """The requests that this attempt took and that were not sent back since, the earliest due first."""
    return tuple(facts for _, facts in _answering(attempt, *UNDER_WAY, *FULFILLED))


def check_approved(attempt: Attempt) -> None:
    """Let nothing be rolled out that people still have to approve, or that nothing could certify.

    Raises:
        AwaitingApproval: fewer have approved than the house asks for.
        BadInput: an approval is of nobody whom the house has named, or the key that would sign the certificate has ended.
        IntegrityError: an approval is of another model.
    """
    approvers = LedgerSettings.load().approvers
    for ledger, facts in _answering(attempt, State.GATED, State.APPROVED):
        _check_can_certify(facts)
        if len(facts.approvals) < ledger.terms.approvals:
            raise AwaitingApproval(
                f"request {facts.id} waits for {ledger.terms.approvals} approvals and has {len(facts.approvals)}: "
                "have them given with `erasediff approve`, and run the same command again."
            )
        for approval in facts.approvals:
            check_approval(attempt, facts.id, approval, approvers)


def give_approval(workdir: Workdir, id: str, by: str, key: SigningKey) -> RequestFacts:
    """Approve the model that is to fulfil a request, after its gate.

    Raises:
        BadInput: no attempt has taken the request, whoever approves filed it, or their key is not the one that the house has of them.
    """
    ledger = open_ledger(workdir)
    if ledger is None:
        raise BadInput(f"there is no ledger in {workdir.root}: check --workdir, or set ERASEDIFF_LEDGER.")
    name = taken_by(ledger, id)
    if name is None:
        raise BadInput(f"no attempt has taken request {id} yet: there is no model to approve.")
    if ledger.events(id)[0].by == by:
        raise BadInput(f"{by} has filed request {id}: somebody else has to approve it.")
    run, at = workdir.attempt(name), _now().replace(microsecond=0)
    approval = approve(consent(run, id, by, at), key)
    check_approval(run, id, approval, LedgerSettings.load().approvers)
    return ledger.approve(id, approval, _now())


def move_requests(attempt: Attempt, row: Step) -> None:
    """Move the requests that an attempt answers by what a step that ended means for them; most steps mean nothing."""
    if row.move is not None:
        _move(attempt, row.move.before, row.move.after, row.move.facts(attempt))
    if row.sent_back and row.makes is not None and (reason := row.sent_back.get(verdict_in(attempt.need(row.makes)))) is not None:
        send_back(attempt, reason)


def begin_purge(attempt: Attempt) -> tuple[str, ...]:
    """Take the requests into the purge, and name them.

    Raises:
        BadInput: one of them is under a legal hold.
    """
    for _, facts in _answering(attempt, *FULFILLED):
        if facts.held:
            raise BadInput(
                f"request {facts.id} is under a legal hold ({', '.join(facts.holds)}), so its data must stay: "
                "release it first with `erasediff request release`, and run the same command again."
            )
    _move(attempt, (State.ROLLED_OUT,), State.PURGING, {})
    return tuple(sorted(facts.id for _, facts in _answering(attempt, *FULFILLED)))


def finish_purge(attempt: Attempt, record: Record) -> None:
    """Everything is gone, and was shown to be."""
    _move(attempt, (State.PURGING,), State.PURGED, {"purge_sha256": record.digest()})


def mark_certified(attempt: Attempt, record: Record) -> None:
    """The final certificate is there."""
    _move(attempt, (State.PURGED,), State.CERTIFIED, {"certificate_sha256": record.digest()})


def record_wait(attempt: Attempt, reason: Reason) -> None:
    """Write down why the purge cannot end yet."""
    for ledger, facts in _answering(attempt, State.PURGING):
        ledger.wait(facts.id, reason, BY, _now())


def _move(attempt: Attempt, before: tuple[State, ...], after: State, said: Facts) -> None:
    for ledger, facts in _answering(attempt, *before):
        ledger.advance(facts.id, facts.state, after, BY, _now(), said)


def _now() -> datetime:
    return datetime.now(UTC)
