"""Which attempts are erased together: one a class, with one erased model, one graph and one promotion for all of them.

What there is once is made in the first attempt, the lead, and taken over by the others; what answers a request is made for each.
"""

from __future__ import annotations

from erasediff.attempts.attempt import Attempt
from erasediff.records.nouns import ErasureRequest


def batch_of(attempt: Attempt) -> tuple[Attempt, ...]:
    """The attempts whose requests are erased together, the earliest due first; this one alone where there is no other."""
    workdir = attempt.workdir
    return tuple(Attempt(workdir, workdir.runs / name) for name in attempt.plan().batch) or (attempt,)


def lead_of(attempt: Attempt) -> Attempt:
    """The batch's first attempt: what is done once for all of them is done there."""
    return batch_of(attempt)[0]


def others_of(attempt: Attempt) -> tuple[Attempt, ...]:
    """The batch without this attempt."""
    return tuple(one for one in batch_of(attempt) if one.name != attempt.name)


def requests_in(attempt: Attempt) -> tuple[ErasureRequest, ...]:
    """What the batch erases; empty where one of its attempts was never opened."""
    batch = batch_of(attempt)
    opened = all((one.folder / "plan.json").is_file() for one in batch)
    return tuple(one.plan().request for one in batch) if opened else ()
