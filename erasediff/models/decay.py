"""How a rate falls over the steps of a run."""

from __future__ import annotations


def linear_decay(step: int, steps: int, fraction: float) -> float:
    """1 until the last ``fraction`` of ``steps``, then falling linearly towards 0; always 1 at fraction 0."""
    return min(1.0, (steps - step) / max(1.0, fraction * steps))
