"""The area under a membership attack's ROC curve, and whether it is shown to be chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Equivalence:
    """An AUC with its standard error and the interval that two one-sided tests at level α decide by: that of level 1-2α."""

    auc: float
    standard_error: float
    lower: float
    upper: float

    def within(self, margin: float) -> bool:
        """Whether the AUC is shown to lie within ``margin`` of 0.5 (Schuirmann 1987)."""
        return 0.5 - margin < self.lower and self.upper < 0.5 + margin


def membership_auc(members: Scores, controls: Scores, alpha: float) -> Equivalence:
    """The probability that a member's score exceeds a control's, ties counting half, with DeLong's standard error.

    DeLong, DeLong and Clarke-Pearson 1988, in the midrank form of Sun and Xu 2014.

    Args:
        members: scores of images that were trained on ``[m]``.
        controls: scores of held-out images of the same kind ``[n]``.
        alpha: of each of the two one-sided tests.
    """
    m, n = len(members), len(controls)
    if min(m, n) < 2 or not (np.isfinite(members).all() and np.isfinite(controls).all()):
        raise ValueError(f"an AUC needs two finite scores of either kind, not {m} and {n}")
    joint = stats.rankdata(np.concatenate([members, controls]))
    below = (joint[:m] - stats.rankdata(members)) / n  # share of controls below each member
    above = 1 - (joint[m:] - stats.rankdata(controls)) / m  # share of members above each control
    auc = float(below.mean())
    error = math.sqrt(below.var(ddof=1) / m + above.var(ddof=1) / n)
    return equivalence(auc, error, alpha)


def equivalence(auc: float, standard_error: float, alpha: float) -> Equivalence:
    """The interval that two one-sided tests at level α decide by (Schuirmann 1987)."""
    half = float(stats.norm.ppf(1 - alpha)) * standard_error
    return Equivalence(auc, standard_error, auc - half, auc + half)


def chance_error(members: int, controls: int) -> float:
    """The standard error of the AUC of an attack that knows nothing: √((m+n+1)/(12·m·n)) (Mann and Whitney 1947)."""
    return math.sqrt((members + controls + 1) / (12 * members * controls))


def equivalence_to_chance(members: int, controls: int, margin: float, alpha: float) -> float:
    """The power of the two one-sided tests: how often an attack that knows nothing is shown to be within ``margin`` of 0.5."""
    z = float(stats.norm.ppf(1 - alpha))
    return max(0.0, 2 * float(stats.norm.cdf(margin / chance_error(members, controls) - z)) - 1)


def required_members(margin: float, alpha: float, power: float) -> int:
    """Members, and as many controls, at which the test has that power."""
    n = 2
    while equivalence_to_chance(n, n, margin, alpha) < power:
        n += 1
    return n
