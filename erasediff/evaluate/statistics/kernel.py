"""The kernel distance (KID) of two feature samples, and a bound for how much a candidate's exceeds the base's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from erasediff.evaluate.statistics.tables import Chosen, Features, Table, parts

_TILE = 1024  # a tile of the table of all pairs has this many rows and columns


def _kernel(left: Features, right: Features) -> Features:
    """k(x,y) = (x·y/d + 1)³ (Bińkowski et al. 2018, arXiv 1801.01401, §4)."""
    cubed: Features = (left @ right.T / left.shape[1] + 1) ** 3
    return cubed


def _sum_of_pairs(left: Table, right: Table) -> float:
    """Σ_ij k(x_i, y_j), tile by tile."""
    return sum(float(_kernel(rows, columns).sum()) for rows in parts(left, _TILE) for columns in parts(right, _TILE))


def _sum_of_equals(table: Table) -> float:
    """Σ_i k(x_i, x_i)."""
    return sum(float(((np.square(rows).sum(1) / rows.shape[1] + 1) ** 3).sum()) for rows in parts(table, _TILE))


def _mean_off_diagonal(table: Table) -> float:
    n = len(table)
    return (_sum_of_pairs(table, table) - _sum_of_equals(table)) / (n * (n - 1))


def kernel_distance(left: Table, right: Table) -> float:
    """The unbiased estimate of MMD² of two samples ``[n,d]`` and ``[m,d]`` (Gretton et al. 2012, eq. 3).

    It is 0 on average where the distributions agree, so it may be negative, and unlike the Fréchet distance it does not
    depend on n.
    """
    if min(len(left), len(right)) < 2:
        raise ValueError("the kernel distance needs two rows of either sample")
    cross = _sum_of_pairs(left, right) / (len(left) * len(right))
    return _mean_off_diagonal(left) + _mean_off_diagonal(right) - 2 * cross


def mean_upper(mean: float, sd: float, n: int, alpha: float) -> float:
    """Student's upper bound of a mean at level 1-α: mean + t_{1-α,n-1}·sd/√n."""
    return mean + float(stats.t.ppf(1 - alpha, n - 1)) * sd / math.sqrt(n)


@dataclass(frozen=True)
class KernelDifference:
    """KID(candidate) - KID(base) by blocks, its mean and standard deviation; and the base's own distance, of all rows at once.

    A block that holds as many rows of every label as of any other varies less than independent rows do, and its distance is
    a little too small for it. In the difference that cancels.
    """

    base: float
    difference: float
    block_sd: float
    blocks: int


def kernel_difference(
    base: Table, candidate: Table, strata: NDArray[np.int64], reference: Table, blocks: int, rng: np.random.Generator
) -> KernelDifference:
    """Compare two samples with one reference, block by block.

    A block holds the same rows of both arms, as many of each label as of every other, and a part of the reference that no
    other block holds; so the blocks' differences are independent and their mean has a t interval.

    Args:
        base: features of the base's samples ``[n,d]``.
        candidate: features of the candidate's samples; row i has the same label and the same noise as the base's.
        strata: the label of every row ``[n]``.
        reference: features of real images ``[m,d]``.
        blocks: how many.
        rng: deals rows to blocks.
    """
    if not len(base) == len(candidate) == len(strata):
        raise ValueError(f"kernel distances are compared row by row, not at {len(base)}, {len(candidate)} and {len(strata)}")
    if blocks < 2 or min(len(base), len(reference)) < 2 * blocks:
        raise ValueError(f"{len(base)} samples and {len(reference)} real images do not make {blocks} blocks of two")
    dealt = np.concatenate([rng.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata)])
    of_reference = rng.permutation(len(reference))
    dealt_blocks = [(dealt[k::blocks], Chosen(reference, of_reference[k::blocks])) for k in range(blocks)]
    differences = np.array(
        [kernel_distance(Chosen(candidate, rows), real) - kernel_distance(Chosen(base, rows), real) for rows, real in dealt_blocks]
    )
    return KernelDifference(kernel_distance(base, reference), float(differences.mean()), float(differences.std(ddof=1)), blocks)
