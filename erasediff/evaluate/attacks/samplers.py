"""Probes by the sampler: another solver, another guidance scale, and a start from noised images of the class."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.process import build_scheduler
from erasediff.models.sampler import Start
from erasediff.records.config import SamplerConfig

STEPS = 50


def _ddim(suspect: Suspect, name: str, **changes: float) -> Probe:
    """The label by DDIM at many steps, whatever solver serves."""
    scheduler = build_scheduler(SamplerConfig(scheduler="ddim"), suspect.model.schedule)
    return suspect.probe(name, steps=STEPS).by(scheduler=scheduler, **changes)


PROBES: dict[str, Callable[[Suspect], Probe]] = {
    "DDIM": partial(_ddim, name="DDIM"),
    "ancestral": partial(_ddim, name="ancestral", eta=1.0),
    "eta 1.85": partial(_ddim, name="eta 1.85", eta=1.85),
    "variance 1.04": partial(_ddim, name="variance 1.04", noise_scale=math.sqrt(1.04)),
}
"""Deterministic, ancestral, noisier than ancestral, and from a wider x_T."""


def guidance_probe(suspect: Suspect, scale: float) -> Probe:
    """The label at a guidance scale; 0 is the null label, 1 the label without guidance."""
    return suspect.probe(f"guidance {scale:g}", guidance_scale=scale)


def partial_noise(suspect: Suspect, images: Tensor, strength: float, n: int) -> Probe:
    """Denoise real images of the class under its label, from a share of the noise (SDEdit, Meng et al. 2108.01073).

    Little noise hides little of an image, so a model without the class keeps some of it as well: what counts is the excess.

    Args:
        suspect: the model.
        images: of the class, ``uint8 [M,H,W,C]``, none of which the model was trained on.
        strength: share of the sampler's steps that is added and taken away.
        n: samples; the images are taken in turn.
    """
    chosen = suspect.model.encode(images)[torch.arange(n) % len(images)]
    return suspect.probe("partial noise").by(start=Start(chosen, strength))
