"""Choose the requests that one run erases together."""

from __future__ import annotations

from collections.abc import Sequence, Set

from erasediff.attempts.batch import requests_in
from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput
from erasediff.evidence.states import TO_ERASE
from erasediff.records.core import ErasureRequest
from erasediff.records.requests import Reason, RequestFacts
from erasediff.records.settings import LedgerSettings
from erasediff.steps.request_lifecycle import open_ledger, open_requests, sent_back_for, taken_by, unreported_requests

_OWN_FAILURES = frozenset({Reason.GATE_FAILED, Reason.GATE_INCONCLUSIVE, Reason.NOT_EXPORTED})


def next_batch(workdir: Workdir, dataset: str, tried: Set[ErasureRequest] = frozenset()) -> tuple[ErasureRequest, ...]:
    """The requests that the next run of a dataset's model fulfils.

    An attempt that is under way continues with its whole batch. Otherwise all open requests are erased together, earliest deadline first. A class
    that failed its own checks in an earlier batch runs alone, after the others.

    Args:
        workdir: the attempts' workdir.
        dataset: the dataset's name.
        tried: requests to leave out.

    Returns:
        One request per class; empty if there is nothing to do.
    """
    waiting = [facts for facts in open_requests(workdir, dataset) if facts.erasure not in tried]
    if not waiting:
        return tuple(request for request in unreported_requests(workdir, dataset) if request not in tried)
    first = waiting[0]
    if first.state not in TO_ERASE:
        return _whole_batch(workdir, first)
    fresh = [facts.erasure for facts in waiting if facts.state in TO_ERASE and sent_back_for(workdir, facts.id) not in _OWN_FAILURES]
    return tuple(dict.fromkeys(fresh))[: LedgerSettings.load().batch] or (first.erasure,)


def _whole_batch(workdir: Workdir, facts: RequestFacts) -> tuple[ErasureRequest, ...]:
    """All requests of the attempt that took this one; only this one if the attempt is not in this workdir."""
    ledger = open_ledger(workdir)
    name = None if ledger is None else taken_by(ledger, facts.id)
    try:
        found = () if name is None else requests_in(workdir.attempt(name))
    except BadInput:
        found = ()
    return found if facts.erasure in found else (facts.erasure,)


def sent_back_with_batch(workdir: Workdir, requests: Sequence[ErasureRequest]) -> set[ErasureRequest]:
    """The requests that were sent back only because another class of the batch failed; they may run again at once."""
    datasets = {request.dataset for request in requests}
    waiting = [facts for dataset in datasets for facts in open_requests(workdir, dataset) if facts.state in TO_ERASE and facts.erasure in requests]
    return {facts.erasure for facts in waiting if sent_back_for(workdir, facts.id) is Reason.BATCH_REFUSED}
