"""Sample otherwise: an erasure that was tuned on one solver may not hold on another."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.denoiser import build_scheduler
from erasediff.records.config import SamplerConfig

STEPS = 50


def _ddim(suspect: Suspect, name: str, **changes: float) -> Probe:
    """The label by DDIM at many steps, whatever solver serves."""
    schedule = suspect.model.schedule
    scheduler = build_scheduler(SamplerConfig(scheduler="ddim"), schedule.timesteps, schedule.prediction_type)
    return suspect.probe(name, steps=STEPS).by(scheduler=scheduler, **changes)


PROBES: dict[str, Callable[[Suspect], Probe]] = {
    "DDIM": partial(_ddim, name="DDIM"),
    "ancestral": partial(_ddim, name="ancestral", eta=1.0),
    "eta 1.85": partial(_ddim, name="eta 1.85", eta=1.85),
    "variance 1.04": partial(_ddim, name="variance 1.04", noise_scale=math.sqrt(1.04)),
}
"""Deterministic, ancestral, noisier than ancestral, and from a wider x_T."""
