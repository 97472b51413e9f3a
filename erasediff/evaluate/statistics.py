"""Intervals the gate decides with: pure functions of counts and feature matrices. All bounds are one-sided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Features = NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
class _Moments:
    """Mean and covariance of a feature sample."""

    mean: Features
    covariance: Features

    @classmethod
    def of(cls, features: Features) -> _Moments:
        return cls(features.mean(0), np.cov(features, rowvar=False))

    @cached_property
    def root(self) -> Features:
        """The symmetric square root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: Features = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        return root

    def distance(self, other: _Moments) -> float:
        shift = self.mean - other.mean
        cross = np.sqrt(np.linalg.eigvalsh(self.root @ other.covariance @ self.root).clip(min=0)).sum()
        return float(shift @ shift + np.trace(self.covariance) + np.trace(other.covariance) - 2 * cross)


def frechet_distance(left: Features, right: Features) -> float:
    """Fréchet distance of the Gaussians fitted to two feature samples ``[n,d]``.

    ‖μ_1-μ_2‖² + tr(Σ_1 + Σ_2 - 2(Σ_1Σ_2)^½) (Dowson and Landau 1982). The trace of the root is the sum of the roots of
    the eigenvalues of Σ_1^½ Σ_2 Σ_1^½, which is symmetric, so no complex part appears.
    """
    return _Moments.of(left).distance(_Moments.of(right))


@dataclass(frozen=True)
class FrechetDifference:
    """D = FD(candidate) - FD(base) at equal n, and its bootstrap."""

    fd_base: float
    fd_candidate: float
    bootstrap_mean: float
    bootstrap_sd: float


def frechet_difference(
    base: Features, candidate: Features, strata: NDArray[np.int64], reference: Features, resamples: int, rng: np.random.Generator
) -> FrechetDifference:
    """Bootstrap the difference of two Fréchet distances to one reference.

    The bootstrap follows the design: row i of both arms was sampled with the same label and the same noise, so one draw
    of rows serves both arms; and every label has a fixed number of rows, so rows are drawn within labels.

    Args:
        base: features of the base's samples ``[n,d]``.
        candidate: features of the candidate's samples, the same ``n``: the distance is biased in n, so it is never
            compared across n.
        strata: the label of every row ``[n]``.
        reference: features of real images ``[m,d]``.
        resamples: how many bootstrap resamples.
        rng: the generator of the resampling.
    """
    if not len(base) == len(candidate) == len(strata):
        raise ValueError(f"Fréchet distances are compared at equal n, not at {len(base)}, {len(candidate)} and {len(strata)}")
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    fixed = _Moments.of(reference)
    differences = np.empty(resamples)
    for k in range(resamples):
        rows = np.concatenate([rng.choice(group, len(group)) for group in members])
        differences[k] = fixed.distance(_Moments.of(candidate[rows])) - fixed.distance(_Moments.of(base[rows]))
    return FrechetDifference(
        fixed.distance(_Moments.of(base)), fixed.distance(_Moments.of(candidate)), float(differences.mean()), float(differences.std(ddof=1))
    )


def bias_corrected_upper(difference: float, bootstrap_mean: float, bootstrap_sd: float, alpha: float) -> float:
    """Upper bound 2D - mean(D*) + z_{1-α}·sd(D*).

    A percentile interval of FD covers nothing, since every resample is farther from the reference than the sample is;
    the bias of the bootstrap is subtracted instead.
    """
    return 2 * difference - bootstrap_mean + float(stats.norm.ppf(1 - alpha)) * bootstrap_sd
