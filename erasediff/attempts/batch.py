"""Batches: attempts that are erased together, one per class, with one erased model, one graph and one promotion.

The first attempt, the lead, makes what the batch shares; each attempt makes what answers its own request.
"""

from __future__ import annotations

from erasediff.attempts.attempt import Attempt
from erasediff.records.core import ErasureRequest


def batch_of(attempt: Attempt) -> tuple[Attempt, ...]:
    """The attempts of the batch, earliest deadline first; only this one if it is single."""
    workdir = attempt.workdir
    return tuple(Attempt(workdir, workdir.runs / name) for name in attempt.plan().batch) or (attempt,)


def lead_of(attempt: Attempt) -> Attempt:
    """The first attempt of the batch, which makes what the batch shares."""
    return batch_of(attempt)[0]


def others_of(attempt: Attempt) -> tuple[Attempt, ...]:
    """The batch without this attempt."""
    return tuple(one for one in batch_of(attempt) if one.name != attempt.name)


def requests_in(attempt: Attempt) -> tuple[ErasureRequest, ...]:
    """The requests of the batch; empty if one of its attempts was never opened."""
    batch = batch_of(attempt)
    opened = all((one.folder / "plan.json").is_file() for one in batch)
    return tuple(one.plan().request for one in batch) if opened else ()
