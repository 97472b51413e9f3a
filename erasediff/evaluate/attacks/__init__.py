"""Ways of getting a forgotten class out of a model: one file each.

An attack is a function from a :class:`Suspect` to probes: sources to sample from, with the conditions to ask for. It draws no
image itself; :func:`erasediff.evaluate.attacks.probe.look` does that for all of them, with committed seeds. Attacks that
first train (on retained images, on a few forgotten ones) return probes of what they trained.
"""

from erasediff.evaluate.attacks import embeddings, guidance, null_label, samplers
from erasediff.evaluate.attacks.probe import Probe, Suspect, look

__all__ = ["Probe", "Suspect", "look", "probes_of"]


def probes_of(suspect: Suspect) -> list[Probe]:
    """Everything that only asks and trains nothing: the checks F2 and F3."""
    return [probe for attack in (null_label, guidance, samplers, embeddings) for probe in attack.probes(suspect)]
