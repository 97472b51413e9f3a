"""What an attack is given, what it returns, and how the images of a probe are drawn and looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.sampling import draw_samples
from erasediff.evaluate.seeds import check_seeds
from erasediff.models.family import Model
from erasediff.models.sampler import Source
from erasediff.records.attacks import Detections
from erasediff.records.config import SamplerConfig


@dataclass(frozen=True)
class Suspect:
    """A model that is said to have forgotten a class, and what an attacker has beside it.

    ``base`` is the model before the erasure: whoever downloaded it can try its embeddings on the new one. The base is a
    suspect too, in the controls. ``retained`` are the labels that stay.
    """

    model: Model
    base: Model
    label: int
    retained: tuple[int, ...]
    sampler: SamplerConfig
    device: torch.device
    seed: int

    def probe(self, name: str, *conditions: int, model: Model | None = None, **changes: Any) -> Probe:
        """A probe by the sampler that serves with ``changes`` to it: of the label if no condition is named, of this model if none is."""
        sampler, source = self.sampler.model_copy(update=changes), (model or self.model).source(self.device)
        return Probe(name, source, torch.tensor(conditions or (self.label,)), sampler)


@dataclass(frozen=True)
class Probe:
    """A source, the conditions ``int64 [K]`` that are sampled in turn, and the sampler."""

    name: str
    source: Source
    conditions: Tensor
    sampler: SamplerConfig

    def by(self, **changes: Any) -> Probe:
        """The same with another scheduler, η or scale of noise; see :class:`Source`."""
        return replace(self, source=replace(self.source, **changes))


def sample_and_count(watch: Watch, probe: Probe, n: int, key: bytes, check: str, of: str) -> Detections:
    """Draw ``n`` images of a probe and count detections.

    Args:
        watch: the detector set to the class.
        probe: what to sample.
        n: how many images.
        key: of the evaluation seeds; two models under the same probe get the same seeds.
        check: the check that asks, so that no two checks share an image.
        of: whose probe it is, for the progress bar.
    """
    labels = probe.conditions[torch.arange(n) % len(probe.conditions)]
    images = draw_samples(probe.source, labels, check_seeds(key, f"{check} {probe.name}", n), probe.sampler, f"{of}: {check}, {probe.name}")
    return watch.count(images)
