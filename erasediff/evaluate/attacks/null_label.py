"""F2: ask for nothing in particular. A model that hides a class from its label may still make it unasked."""

from __future__ import annotations

from erasediff.evaluate.attacks.probe import Probe, Suspect


def probes(suspect: Suspect) -> list[Probe]:
    """The null label, by the sampler that serves."""
    return [suspect.probe("F2", "null label", suspect.model.classes)]
