"""Earlier erasures and tries, and R4: how far all erasures together have moved the retained classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.evaluate.gate.retain import check_fidelity
from erasediff.records.core import Check
from erasediff.records.measurements import Measurements
from erasediff.records.policy import GatePolicy

_DRIFT = Statistic("relative Fréchet distance change since the first model, chained; upper bound for the last erasure", "relative", "upper")


@dataclass(frozen=True)
class History:
    """Earlier erasures and tries: the rows of the classes already forgotten, the factor of the Fréchet distance so far, and the number of this try.

    ``drift`` is ``None`` if unknown. ``beside`` are labels that are erased in the same run and have their own gate.
    """

    forgotten: tuple[int, ...] = ()
    drift: float | None = 1.0
    attempt: int = 1
    beside: tuple[int, ...] = ()

    @property
    def lost(self) -> tuple[int, ...]:
        """Other labels that the model need not make any more."""
        return (*self.forgotten, *self.beside)


def check_drift(policy: GatePolicy, measured: Measurements, history: History) -> list[Check]:
    """R4: from the second erasure on; R2 covers the first.

    Earlier models are revoked and may be deleted. So the changes are chained: each one was measured in pairs against the model before it, on the
    classes retained at the time.
    """
    if not history.forgotten:
        return []
    question, last = (
        Question("R4", "All erasures together changed retained images little", _DRIFT, policy.fidelity.max_drift),
        check_fidelity(policy, measured.retained),
    )
    if history.drift is None or not (math.isfinite(history.drift) and history.drift > 0):
        return [question.unanswered(0, "the effect of earlier erasures is unknown: the champion has no tag erasediff.drift")]
    if last.value is None or last.bound is None:
        return [question.unanswered(last.n, last.reason)]
    return [question.answer(history.drift * (1 + last.value) - 1, history.drift * (1 + last.bound) - 1, last.n)]


def drift_after(measured: Measurements, history: History) -> float | None:
    """The factor for the next erasure from this model."""
    frechet = measured.retained.frechet
    if history.drift is None or frechet is None or not frechet.fd_base > 0:
        return None
    return history.drift * frechet.fd_erased / frechet.fd_base
