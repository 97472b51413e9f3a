"""Ask harder, or more softly: guidance amplifies what little of a class is left in its label."""

from __future__ import annotations

from erasediff.evaluate.attacks.probe import Probe, Suspect


def probe(suspect: Suspect, scale: float) -> Probe:
    """The label at a guidance scale; 0 is the null label, 1 the label without guidance."""
    return suspect.probe(f"guidance {scale:g}", guidance_scale=scale)
