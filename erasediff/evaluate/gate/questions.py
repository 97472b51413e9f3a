"""Questions: checks before they are answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from erasediff.records.core import Check, Unit, Verdict


@dataclass(frozen=True)
class Statistic:
    """What a check bounds, its unit, and the kind of bound."""

    name: str
    unit: Unit
    kind: Literal["upper", "lower"]


@dataclass(frozen=True)
class Question:
    """A check before it is answered."""

    id: str
    title: str
    statistic: Statistic
    threshold: float

    def answer(self, value: float, bound: float, n: int) -> Check:
        """An upper bound must not exceed the threshold, a lower bound must not fall below it; both must be finite."""
        if not (math.isfinite(value) and math.isfinite(bound)):
            return self.unanswered(n, "the measured value is not finite")
        holds = bound <= self.threshold if self.statistic.kind == "upper" else bound >= self.threshold
        return self._check(value, bound, n, Verdict.PASS if holds else Verdict.FAIL, "")

    def unanswered(self, n: int, reason: str) -> Check:
        """The check is INCONCLUSIVE: it was not measured, or not well enough."""
        return self._check(None, None, n, Verdict.INCONCLUSIVE, reason)

    def _check(self, value: float | None, bound: float | None, n: int, verdict: Verdict, reason: str) -> Check:
        return Check(
            id=self.id,
            title=self.title,
            statistic=self.statistic.name,
            unit=self.statistic.unit,
            value=value,
            bound=bound,
            bound_kind=self.statistic.kind,
            threshold=self.threshold,
            n=n,
            verdict=verdict,
            reason=reason,
        )


_GRAVITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


def worst(checks: Sequence[Check]) -> Check:
    """The worst of several checks with upper limits."""
    return max(checks, key=lambda check: (_GRAVITY.index(check.verdict), -math.inf if check.bound is None else check.bound))
