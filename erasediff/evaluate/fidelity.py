"""How retained images look: Fréchet and kernel distance, and the manifolds of real and generated images, base against erased.

Row i of both arms has the same label and the same noise, so every comparison here is one of pairs. The reference is real
images that no denoiser was trained on: memory earns nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.evaluate.statistics import Chosen, Table, frechet_difference, kernel_difference, parts
from erasediff.records.measurements import Density, FrechetChange, KernelChange, ManifoldChange, PairedCounts
from erasediff.records.policy import FidelityPolicy

_ROWS = 1024  # a tile of the table of distances: never more than this in memory
_COLUMNS = 4096

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Arms:
    """Features of the base's and the erased model's samples ``[n,d]``, the label of every row ``[n]``, and of real images ``[m,d]``."""

    base: Table
    erased: Table
    labels: NDArray[np.int64]
    reference: Table

    @property
    def few(self) -> Table:
        """No more real images than samples: what compares every pair takes too long with all of them."""
        return Chosen(self.reference, evenly(len(self.reference), len(self.base)))


def frechet_change(arms: Arms, policy: FidelityPolicy, seed: int) -> FrechetChange:
    """Fréchet distances to the reference and the bootstrap of their difference."""
    found = frechet_difference(arms.base, arms.erased, arms.labels, arms.reference, policy.resamples, np.random.default_rng(seed))
    return FrechetChange(
        n=len(arms.base),
        fd_base=found.fd_base,
        fd_erased=found.fd_candidate,
        bootstrap_mean=found.bootstrap_mean,
        bootstrap_sd=found.bootstrap_sd,
        resamples=policy.resamples,
    )


def kernel_change(arms: Arms, policy: FidelityPolicy, seed: int) -> KernelChange | None:
    """Kernel distances to the reference, block by block; nothing where there are too few images for the blocks."""
    if min(len(arms.base), len(arms.few)) < 2 * policy.kernel_blocks:
        return None
    found = kernel_difference(arms.base, arms.erased, arms.labels, arms.few, policy.kernel_blocks, np.random.default_rng(seed))
    return KernelChange(n=len(arms.base), base=found.base, difference=found.difference, block_sd=found.block_sd, blocks=found.blocks)


def manifold_change(arms: Arms, k: int) -> ManifoldChange | None:
    """Precision, recall and coverage of both arms, as pairs, and density; nothing where there are no k neighbours.

    Precision: generated images inside the manifold of real ones. Recall: real images inside the manifold of generated ones
    (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 2). Coverage: real images with a generated one nearer than their k-th
    real neighbour (Naeem et al. 2020, arXiv 2002.09797, eq. 6). Density: see :func:`density`. A manifold is the union of the
    balls around its images that reach to their k-th neighbours. Precision pairs samples of the same noise; recall and
    coverage pair real images.
    """
    if min(len(arms.base), len(arms.few)) <= k:
        return None
    real, base, erased = arms.few, arms.base, arms.erased
    radii = kth_distance(real, k)
    return ManifoldChange(
        precision=_pairs(inside(base, real, radii), inside(erased, real, radii)),
        recall=_pairs(inside(real, base, kth_distance(base, k)), inside(real, erased, kth_distance(erased, k))),
        coverage=_pairs(covered(real, radii, base), covered(real, radii, erased)),
        density=Density(base=density(real, radii, base, k), erased=density(real, radii, erased, k)),
    )


def kth_distance(points: Table, k: int) -> Tensor:
    """Distance ``[n]`` of each of ``points [n,d]`` to its k-th neighbour among the others."""
    if not 1 <= k < len(points):
        raise ValueError(f"{len(points)} points have no {k}-th neighbour")

    def nearest(known: Tensor, distances: Tensor, _: slice) -> Tensor:
        both = torch.cat([known, distances], 1)
        return both.topk(min(k + 1, both.shape[1]), largest=False).values

    return _folded(points, points, lambda rows: torch.empty(rows, 0, dtype=torch.float64), nearest).amax(1)


def inside(points: Table, centres: Table, radii: Tensor) -> Mask:
    """Whether each of ``points [n,d]`` lies in a ball around one of ``centres [m,d]``: ``bool [n]``."""

    def found(known: Tensor, distances: Tensor, columns: slice) -> Tensor:
        return known | (distances <= radii[columns]).any(1)

    return _folded(points, centres, lambda rows: torch.zeros(rows, dtype=torch.bool), found).numpy()


def covered(centres: Table, radii: Tensor, points: Table) -> Mask:
    """Whether the ball around each of ``centres [m,d]`` holds one of ``points [n,d]``: ``bool [m]``."""

    def nearer(known: Tensor, distances: Tensor, _: slice) -> Tensor:
        return torch.minimum(known, distances.min(1).values)

    return (_folded(centres, points, lambda rows: torch.full((rows,), torch.inf, dtype=torch.float64), nearer) <= radii).numpy()


def density(centres: Table, radii: Tensor, points: Table, k: int) -> float:
    """How many balls around real images a generated one lies in, on average and in units of k (Naeem et al. 2020, eq. 5).

    Σ_j Σ_i 1[y_j ∈ B(x_i, r_i)] / (k·M) for real images x_i, ``centres [m,d]`` with their ``radii [m]``, and M generated ones
    y_j, ``points``. It is about 1 where they are alike; it is no share and may exceed 1.
    """

    def counted(known: Tensor, distances: Tensor, columns: slice) -> Tensor:
        return known + (distances <= radii[columns]).sum(1)

    balls = _folded(points, centres, lambda rows: torch.zeros(rows, dtype=torch.int64), counted)
    return int(balls.sum()) / (k * len(points))


def _folded(rows: Table, columns: Table, start: Callable[[int], Tensor], step: Callable[[Tensor, Tensor, slice], Tensor]) -> Tensor:
    """Go over the table of distances tile by tile.

    Args:
        rows: ``[n,d]``.
        columns: ``[m,d]``.
        start: what is known of a number of rows before any column was seen.
        step: what is known after the columns ``slice`` at these distances ``[r,c]``.

    Returns:
        What is known of every row ``[n,…]`` at the end.
    """
    ends = []
    for part in parts(rows, _ROWS):
        known, seen = start(len(part)), 0
        for others in parts(columns, _COLUMNS):
            known = step(known, torch.cdist(torch.from_numpy(part), torch.from_numpy(others)), slice(seen, seen + len(others)))
            seen += len(others)
        ends.append(known)
    return torch.cat(ends)


def _pairs(base: Mask, erased: Mask) -> PairedCounts:
    return PairedCounts(n=len(base), base=int(base.sum()), erased=int(erased.sum()), both=int((base & erased).sum()))


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of ``count`` rows, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
