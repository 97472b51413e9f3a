"""F3: sample otherwise. An erasure that was tuned on one solver may not hold on another."""

from __future__ import annotations

from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.denoiser import build_scheduler
from erasediff.records.config import SamplerConfig

STEPS = 50
NOISE_SCALE = 1.0198  # variance × 1.04
WAYS: tuple[tuple[str, dict[str, float]], ...] = (
    ("DDIM", {}),
    ("ancestral", {"eta": 1.0}),
    ("η 1.85", {"eta": 1.85}),
    ("variance × 1.04", {"noise_scale": NOISE_SCALE}),
)


def probes(suspect: Suspect) -> list[Probe]:
    """The label by DDIM at many steps: deterministic, ancestral, noisier than ancestral, and from a wider x_T."""
    schedule = suspect.model.schedule
    scheduler = build_scheduler(SamplerConfig(scheduler="ddim"), schedule.timesteps, schedule.prediction_type)
    return [suspect.probe("F3", f"{name}, {STEPS} steps", steps=STEPS).by(scheduler=scheduler, **changes) for name, changes in WAYS]
