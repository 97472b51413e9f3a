"""The kernel distance (KID) of two feature samples, and a bound for how much a candidate's exceeds the base's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from erasediff.evaluate.statistics.frechet import Features


def _kernel(left: Features, right: Features) -> Features:
    """k(x,y) = (x·y/d + 1)³ (Bińkowski et al. 2018, arXiv 1801.01401, §4)."""
    cubed: Features = (left @ right.T / left.shape[1] + 1) ** 3
    return cubed


def _mean_off_diagonal(values: Features) -> float:
    n = len(values)
    return float((values.sum() - np.trace(values)) / (n * (n - 1)))


def kernel_distance(left: Features, right: Features) -> float:
    """The unbiased estimate of MMD² of two samples ``[n,d]`` and ``[m,d]`` (Gretton et al. 2012, eq. 3).

    It is 0 on average where the distributions agree, so it may be negative, and unlike the Fréchet distance it does not
    depend on n.
    """
    if min(len(left), len(right)) < 2:
        raise ValueError("the kernel distance needs two rows of either sample")
    cross = float(_kernel(left, right).mean())
    return _mean_off_diagonal(_kernel(left, left)) + _mean_off_diagonal(_kernel(right, right)) - 2 * cross


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
    base: Features, candidate: Features, strata: NDArray[np.int64], reference: Features, blocks: int, rng: np.random.Generator
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
    dealt_blocks = [(dealt[k::blocks], reference[of_reference[k::blocks]]) for k in range(blocks)]
    differences = np.array([kernel_distance(candidate[rows], real) - kernel_distance(base[rows], real) for rows, real in dealt_blocks])
    return KernelDifference(kernel_distance(base, reference), float(differences.mean()), float(differences.std(ddof=1)), blocks)
