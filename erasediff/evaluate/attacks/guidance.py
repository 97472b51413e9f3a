"""Ask harder, or more softly: guidance amplifies what little of a class is left in its label."""

from __future__ import annotations

from erasediff.evaluate.attacks.probe import Probe, Suspect

_PREFIX = "guidance "


def scale_in(name: str) -> float | None:
    """The guidance scale that a name speaks of, if it speaks of one."""
    try:
        return float(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else None
    except ValueError:
        return None


def probe(suspect: Suspect, scale: float) -> Probe:
    """The label at a guidance scale; 0 is the null label, 1 the label without guidance."""
    return suspect.probe(f"{_PREFIX}{scale:g}", guidance_scale=scale)
