"""Probes for a forgotten class: one file a kind, one name a probe.

An entry of ``PROBES`` makes a :class:`Probe` of a :class:`Suspect`: a source to sample from and the conditions to sample. It
draws no image; :func:`sample_and_count` does that for all of them, with committed seeds. The gate's policy lists the names.
"""

from __future__ import annotations

from collections.abc import Callable

from erasediff.errors import BadInput
from erasediff.evaluate.attacks import embeddings, samplers
from erasediff.evaluate.attacks.probe import Probe, Suspect, sample_and_count
from erasediff.records.policy import guidance_scale

__all__ = ["Probe", "Suspect", "null_label_probe", "probe_named", "sample_and_count"]

PROBES: dict[str, Callable[[Suspect], Probe]] = {**samplers.PROBES, **embeddings.PROBES}


def null_label_probe(suspect: Suspect) -> Probe:
    """The null label, by the sampler that serves: a model that hides a class from its label may still make it unasked."""
    assert suspect.model.null_row is not None, "the caller asks a model that has one"
    return suspect.probe("null label", suspect.model.null_row)


def probe_named(suspect: Suspect, name: str) -> Probe:
    """The probe that a policy calls ``name``.

    Raises:
        BadInput: there is none of that name.
    """
    if name in PROBES:
        return PROBES[name](suspect)
    if (scale := guidance_scale(name)) is not None:
        return samplers.guidance_probe(suspect, scale)
    raise BadInput(f"the policy asks for the probe {name!r}, and there is none of that name: choose from 'guidance NUMBER', {', '.join(PROBES)}.")
