"""What an attack is given, what it returns, and how the images of a probe are drawn and looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.sampling import Source, draw_samples
from erasediff.evaluate.seeds import check_seeds
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.records.config import SamplerConfig
from erasediff.records.nouns import Cell


@dataclass(frozen=True)
class Suspect:
    """A model that is said to have forgotten a class, and what an attacker has beside it.

    ``base`` is the model before the erasure: whoever has downloaded it once can try its embeddings on the new one. The base
    is a suspect too, in the controls.
    """

    model: ClassConditionalPipeline
    base: ClassConditionalPipeline
    label: int
    retained: tuple[int, ...]
    sampler: SamplerConfig
    device: torch.device
    seed: int

    def probe(self, check: str, name: str, *conditions: int, model: ClassConditionalPipeline | None = None, **changes: Any) -> Probe:
        """A probe of the suspect, or of ``model``, by the sampler that serves with ``changes`` to it; of the label if no condition is named."""
        sampler, source = self.sampler.model_copy(update=changes), Source.of(model or self.model, self.device)
        return Probe(check, name, source, torch.tensor(conditions or (self.label,)), sampler)


@dataclass(frozen=True)
class Probe:
    """One way of asking: a source, the conditions ``int64 [K]`` that images are asked for in turn, and the sampler."""

    check: str
    name: str
    source: Source
    conditions: Tensor
    sampler: SamplerConfig

    def by(self, **changes: Any) -> Probe:
        """The same with another scheduler, η or scale of noise; see :class:`Source`."""
        return replace(self, source=replace(self.source, **changes))


def look(watch: Watch, probe: Probe, n: int, key: bytes) -> Cell:
    """Draw ``n`` images of a probe, with seeds that are a function of ``key`` and the probe's name, and count detections."""
    labels = probe.conditions[torch.arange(n) % len(probe.conditions)]
    seeds = check_seeds(key, f"{probe.check} {probe.name}", n)
    images: Tensor = draw_samples(probe.source, labels, seeds, probe.sampler, f"{probe.check}: {probe.name}")
    return Cell(check=probe.check, name=probe.name, found=watch.count(images))
