"""Bounds of rates and of differences of rates, from counts. All are one-sided."""

from __future__ import annotations

import math

from scipy import stats


def binomial_upper(successes: int, n: int, alpha: float) -> float:
    """Clopper-Pearson upper bound of a rate at level 1-α: BetaInv(1-α; k+1, n-k) (Clopper and Pearson 1934)."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} are not counts")
    return 1.0 if successes == n else float(stats.beta.ppf(1 - alpha, successes + 1, n - successes))


def binomial_lower(successes: int, n: int, alpha: float) -> float:
    """Clopper-Pearson lower bound of a rate at level 1-α."""
    return 1.0 - binomial_upper(n - successes, n, alpha)


def _wilson(successes: int, n: int, z: float) -> tuple[float, float]:
    rate, spread = successes / n, z * z / n
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + spread)
    return centre - half, centre + half


def pairs_needed(disagreements: int, n: int, width: float, alpha: float) -> int:
    """How many pairs put the bound of :func:`paired_difference_lower` at most ``width`` below the estimate, judged by ``n`` first ones.

    The variance of a difference of paired rates is their disagreement by n (McNemar 1947). Which of the two was better is not looked at, so a
    number of pairs that was chosen by this hardly moves the level of a later test (blinded re-estimation: Friede & Kieser 2006, Biom. J. 48:537).
    """
    z = float(stats.norm.ppf(1 - alpha))
    return math.ceil(disagreements / n * (z / width) ** 2)


def difference_lower(successes: int, n: int, reference_successes: int, reference_n: int, alpha: float) -> float:
    """Lower bound of p - p_reference at level 1-α by Newcombe's hybrid score method (Newcombe 1998, method 10).

    It keeps its level near 1, where the normal approximation has intervals of no width.
    """
    z = float(stats.norm.ppf(1 - alpha))
    rate, reference = successes / n, reference_successes / reference_n
    lower, _ = _wilson(successes, n, z)
    _, upper = _wilson(reference_successes, reference_n, z)
    return rate - reference - math.sqrt((rate - lower) ** 2 + (upper - reference) ** 2)


def difference_upper(successes: int, n: int, reference_successes: int, reference_n: int, alpha: float) -> float:
    """Upper bound of p - p_reference at level 1-α, by the same method."""
    return -difference_lower(reference_successes, reference_n, successes, n, alpha)


def paired_difference_lower(both: int, gained: int, lost: int, n: int, alpha: float) -> float:
    """Lower bound of p - p_reference at level 1-α where the two were tried on the same ``n`` things.

    Newcombe's square-and-add method for paired data (Newcombe 1998, Statist. Med. 17:2635, method 10): Wilson's limits of
    the two rates, put together with the correlation φ of their outcomes, which is corrected for continuity where positive.

    Args:
        both: successes of both.
        gained: successes that the reference has not.
        lost: successes of the reference alone.
        n: pairs.
        alpha: one-sided.
    """
    neither = n - both - gained - lost
    if n < 1 or min(both, gained, lost, neither) < 0:
        raise ValueError(f"{both} + {gained} + {lost} of {n} are not counts of pairs")
    z = float(stats.norm.ppf(1 - alpha))
    rate, reference = (both + gained) / n, (both + lost) / n
    lower, _ = _wilson(both + gained, n, z)
    _, upper = _wilson(both + lost, n, z)
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    agreement = float(both * neither - gained * lost)
    if agreement > 0:
        agreement = max(agreement - n / 2, 0.0)
    correlation = agreement / math.sqrt(margins) if margins else 0.0
    down, up = rate - lower, upper - reference
    return rate - reference - math.sqrt(max(down**2 - 2 * correlation * down * up + up**2, 0.0))
