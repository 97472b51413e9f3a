"""The Fréchet distance of two feature samples, and a bound for how much a candidate's exceeds the base's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from erasediff.evaluate.statistics.tables import Chosen, Features, Table, parts

_ROWS = 4096  # of a part; a table that is no longer has the moments that numpy gives the whole


@dataclass(frozen=True, eq=False)
class _Moments:
    """Mean and covariance of a feature sample."""

    mean: Features
    covariance: Features

    @classmethod
    def of(cls, table: Table) -> _Moments:
        """Two passes over the parts: the covariance of rows that are far from 0 does not survive one (Chan et al. 1983)."""
        n = len(table)
        mean = reduce(np.add, (part.sum(0) for part in parts(table, _ROWS))) / n
        return cls(mean, reduce(np.add, (_scatter(part - mean) for part in parts(table, _ROWS))) * (1 / (n - 1)))

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


def _scatter(centred: Features) -> Features:
    return centred.T @ centred


def frechet_distance(left: Table, right: Table) -> float:
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
    base: Table, candidate: Table, strata: NDArray[np.int64], reference: Table, resamples: int, rng: np.random.Generator
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
        differences[k] = fixed.distance(_Moments.of(Chosen(candidate, rows))) - fixed.distance(_Moments.of(Chosen(base, rows)))
    return FrechetDifference(
        fixed.distance(_Moments.of(base)), fixed.distance(_Moments.of(candidate)), float(differences.mean()), float(differences.std(ddof=1))
    )


def bias_corrected_upper(difference: float, bootstrap_mean: float, bootstrap_sd: float, alpha: float) -> float:
    """Upper bound 2D - mean(D*) + z_{1-α}·sd(D*).

    A percentile interval of FD covers nothing, since every resample is farther from the reference than the sample is;
    the bias of the bootstrap is subtracted instead.
    """
    return 2 * difference - bootstrap_mean + float(stats.norm.ppf(1 - alpha)) * bootstrap_sd
