"""A development proxy: a cheap check during the erasure that may end it early. It has no say in promotion."""

from __future__ import annotations

from collections.abc import Callable

import torch

from erasediff.models.family import Model
from erasediff.models.sampler import sample
from erasediff.records.config import ProxyConfig, SamplerConfig
from erasediff.unlearn.posterior import ClassPosterior
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.trainer import Erasure
from erasediff.unlearn.workbench import ErasureData

_FIRST_SEED = 2**53
"""The gate's seeds are below 2^53 (erasediff.evaluate.seeds); those of the proxy lie above, so that the two never meet."""


def proxy_seeds(seed: int, count: int) -> list[int]:
    """Seeds of the proxy's samples, disjoint from the gate's."""
    return [_FIRST_SEED + int(drawn) for drawn in Randomness(seed).integers(2**40, count)]


def development_proxy(config: ProxyConfig, data: ErasureData, base: Model, sampler: SamplerConfig, seed: int) -> Callable[[Erasure], bool]:
    """A function that samples the forgotten labels and tells whether few enough samples still show them.

    The detector is the Bayes posterior of the training images' kernel densities, not the gate's classifier: the
    gate's own judge must not tune the run that it will judge.

    Args:
        config: how many samples, and how many may be detected.
        data: the erasure's states.
        base: what is erased from.
        sampler: steps and guidance scale that serve.
        seed: of the samples.
    """
    images, labels = torch.cat([data.retain, data.forget]), torch.cat([data.retain_labels, data.forget_labels])
    classes = ClassPosterior(images, labels, base.schedule, bandwidth=0.3)
    wanted = data.forgotten[torch.arange(config.n) % len(data.forgotten)]
    seeds = proxy_seeds(seed, config.n)

    def enough(erasure: Erasure) -> bool:
        device = next(erasure.weights().parameters()).device
        source = base.with_network(erasure.weights()).source(device)
        states = base.encode(sample(source, wanted, seeds, sampler.steps, sampler.guidance_scale))
        found = classes.classes[classes.log_densities(states, torch.zeros(config.n, dtype=torch.int64)).argmax(1)]
        return int(torch.isin(found, data.forgotten).sum()) <= config.max_detections

    return enough
