"""How retained images look: Fréchet and kernel distance, and the manifolds of real and generated images, base against erased.

Row i of both arms has the same label and the same noise, so every comparison here is one of pairs. The reference is real
images that no denoiser was trained on: memory earns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.evaluate.statistics import Features, frechet_difference, kernel_difference
from erasediff.records.nouns import FrechetChange, KernelChange, ManifoldChange, Pairs
from erasediff.records.policy import FidelityPolicy

_ROWS = 1024

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Arms:
    """Features of the base's and the erased model's samples ``[n,d]``, the label of every row ``[n]``, and of real images ``[m,d]``."""

    base: Features
    erased: Features
    labels: NDArray[np.int64]
    reference: Features

    @property
    def few(self) -> Features:
        """No more real images than samples: what compares every pair cannot take them all."""
        return self.reference[evenly(len(self.reference), len(self.base))]


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
    """Precision, recall and coverage of both arms, as pairs; nothing where there are no k neighbours.

    Precision: generated images inside the manifold of real ones. Recall: real images inside the manifold of generated ones
    (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 2). Coverage: real images with a generated one nearer than their k-th
    real neighbour (Naeem et al. 2020, arXiv 2002.09797, eq. 6). A manifold is the union of the balls around its images that
    reach to their k-th neighbours. Precision pairs samples of the same noise; recall and coverage pair real images.
    """
    if min(len(arms.base), len(arms.few)) <= k:
        return None
    real, base, erased = (torch.from_numpy(features) for features in (arms.few, arms.base, arms.erased))
    radii = kth_distance(real, k)
    return ManifoldChange(
        precision=_pairs(inside(base, real, radii), inside(erased, real, radii)),
        recall=_pairs(inside(real, base, kth_distance(base, k)), inside(real, erased, kth_distance(erased, k))),
        coverage=_pairs(covered(real, radii, base), covered(real, radii, erased)),
    )


def kth_distance(points: Tensor, k: int) -> Tensor:
    """Distance ``[n]`` of each of ``points [n,d]`` to its k-th neighbour among the others."""
    if not 1 <= k < len(points):
        raise ValueError(f"{len(points)} points have no {k}-th neighbour")
    return torch.cat([torch.cdist(rows, points).kthvalue(k + 1, dim=1).values for rows in _chunks(points)])


def inside(points: Tensor, centres: Tensor, radii: Tensor) -> Mask:
    """Whether each of ``points [n,d]`` lies in a ball around one of ``centres [m,d]``: ``bool [n]``."""
    return torch.cat([(torch.cdist(rows, centres) <= radii).any(1) for rows in _chunks(points)]).numpy()


def covered(centres: Tensor, radii: Tensor, points: Tensor) -> Mask:
    """Whether the ball around each of ``centres [m,d]`` holds one of ``points [n,d]``: ``bool [m]``."""
    nearest = torch.cat([torch.cdist(rows, points).min(1).values for rows in _chunks(centres)])
    return (nearest <= radii).numpy()


def _chunks(points: Tensor) -> Iterator[Tensor]:
    """Rows in parts, so that a table of distances never needs more than one part's memory."""
    return iter(torch.split(points, _ROWS))


def _pairs(base: Mask, erased: Mask) -> Pairs:
    return Pairs(n=len(base), base=int(base.sum()), erased=int(erased.sum()), both=int((base & erased).sum()))


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of ``count`` rows, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
