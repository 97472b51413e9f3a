"""Samples for measuring: batches that run side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from erasediff.models.sampler import Source, sample
from erasediff.progress import progress
from erasediff.records.config import SamplerConfig


def draw_samples(source: Source, labels: Tensor, seeds: list[int], config: SamplerConfig, what: str) -> Tensor:
    """Sample one image for each label and seed.

    Args:
        source: what to sample from.
        labels: ``int64 [N]``.
        seeds: one an image.
        config: the sampler that serves.
        what: what the progress bar says.

    Returns:
        ``uint8 [N,H,W,C]``, in the order of the labels. Batches run in ``config.workers`` threads with one compute
        thread each; an image depends on its own seed alone, so the number of threads changes nothing but time.
    """
    return torch.cat(list(draw_batches(source, labels, seeds, config, what)))


def draw_batches(source: Source, labels: Tensor, seeds: list[int], config: SamplerConfig, what: str) -> Iterator[Tensor]:
    """The images of :func:`draw_samples` in batches, in their order; no more are made ahead than there are workers."""
    starts = iter(range(0, len(seeds), config.batch_size))
    with progress(what, len(seeds), images=1) as done, ThreadPoolExecutor(config.workers) as pool:
        ahead = deque(pool.submit(_one_batch, source, labels, seeds, config, start) for start in islice(starts, config.workers))
        count = 0
        while ahead:
            images = ahead.popleft().result()
            ahead.extend(pool.submit(_one_batch, source, labels, seeds, config, start) for start in islice(starts, 1))
            count += len(images)
            done(count)
            yield images


def _one_batch(source: Source, labels: Tensor, seeds: list[int], config: SamplerConfig, start: int) -> Tensor:
    rows = slice(start, start + config.batch_size)
    part = replace(source, start=source.start.rows(rows)) if source.start else source
    return sample(part, labels[rows], seeds[rows], config.steps, config.guidance_scale)
