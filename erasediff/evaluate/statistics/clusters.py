"""A bound for a rate whose samples come in clusters: many seeds of one prompt are not many prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

SHOWING = 10
"""Clusters with a detection from which on their variance says something: simulated in the tests."""


def clustered_upper(detections: NDArray[np.int64], samples: NDArray[np.int64], alpha: float, resamples: int, rng: np.random.Generator) -> float:
    """Upper bound of a detection rate at level 1-α, where clusters and not samples are independent.

    Whole clusters are drawn anew. What the bootstrap is asked for is the variance alone: the ratio of it to that of
    independent samples is the design effect, and the bound is Clopper-Pearson's at the effective number of samples (Korn and
    Graubard 1998), with t for z. A percentile of the bootstrap would be 0 where nothing was detected. Where fewer than
    :data:`SHOWING` clusters have a detection the design effect cannot be seen, and each cluster counts as one sample.

    Args:
        detections: in each cluster ``[c]``.
        samples: in each cluster ``[c]``.
        alpha: one-sided.
        resamples: of the bootstrap.
        rng: draws clusters.
    """
    clusters, total = len(samples), int(samples.sum())
    if clusters < 2 or len(detections) != clusters or (samples < 1).any() or (detections < 0).any() or (detections > samples).any():
        raise ValueError("detections and samples are not counts of two clusters or more")
    rate = float(detections.sum() / total)
    if rate == 1.0:
        return 1.0
    effective = float(clusters)
    if int((detections > 0).sum()) >= SHOWING:
        drawn = rng.integers(clusters, size=(resamples, clusters))
        variance = float((detections[drawn].sum(1) / samples[drawn].sum(1)).var(ddof=1))
        small = (stats.norm.ppf(1 - alpha) / stats.t.ppf(1 - alpha, clusters - 1)) ** 2
        effective = min(float(total), max(effective, small * rate * (1 - rate) / variance)) if variance > 0 else float(total)
    return float(stats.beta.ppf(1 - alpha, rate * effective + 1, (1 - rate) * effective))
