"""Which images a model may be trained on, and which are held out to measure it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Disjoint and complete: ``train`` for denoisers, ``holdout`` for detectors and for later attacks."""

    train: Indices
    holdout: Indices


def partition(labels: NDArray[np.int64], holdout_share: float, seed: int) -> Partition:
    """Hold out ``holdout_share`` of every class, at least one image and never all of them.

    Args:
        labels: ``int64 [N]``.
        holdout_share: share of every class that is held out.
        seed: of the draw; the same labels and seed always give the same partition.
    """
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(holdout_share * len(members))), len(members) - 1)
        held.append(members[:count])
    holdout = np.sort(np.concatenate(held)).astype(np.int64)
    return Partition(np.setdiff1d(np.arange(len(labels), dtype=np.int64), holdout), holdout)
