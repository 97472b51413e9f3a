"""F3: ask harder, or more softly. Guidance amplifies what little of a class is left in its label."""

from __future__ import annotations

from erasediff.evaluate.attacks.probe import Probe, Suspect

SCALES = (0.5, 2.0, 4.0, 8.0)
"""Guidance scales beside the one that serves; 0 is the null label, which F2 asks for."""


def probes(suspect: Suspect) -> list[Probe]:
    """The label at each scale that does not serve: F1 is the one that does."""
    scales = sorted({1.0, *SCALES} - {suspect.sampler.guidance_scale})
    return [suspect.probe("F3", f"guidance {scale:g}", guidance_scale=scale) for scale in scales]
