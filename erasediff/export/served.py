"""Sample as the server does, with the exported graph, a solver's table and numpy, and count detections."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.seeds import check_seeds
from erasediff.progress import progress
from erasediff.records.attacks import Detections
from erasediff.records.config import SamplerConfig
from erasediff.serve.graph import OnnxDecoder, OnnxGraph
from erasediff.serve.solver import SolverTable, initial_noise, sample


@dataclass(frozen=True)
class Served:
    """The served model: a graph, the solver table that the gate judged, the null row, the sampler's settings, and a latent model's decoder."""

    graph: OnnxGraph
    table: SolverTable
    null_row: int | None
    sampler: SamplerConfig
    decoder: OnnxDecoder | None = None

    def count(self, watch: Watch, n: int, check: str, key: bytes, what: str) -> Detections:
        """How many of ``n`` images of the watched label, by the seeds of ``check``, are called that."""
        seeds, size = check_seeds(key, check, n), self.sampler.batch_size
        starts = range(0, n, size)
        with progress(what, n, images=1) as done, ThreadPoolExecutor(self.sampler.workers) as pool:
            parts: list[Tensor] = []
            for part in pool.map(lambda start: self._images(watch.label, seeds[start : start + size]), starts):
                parts.append(part)
                done(sum(len(one) for one in parts))
        return watch.count(torch.cat(parts))

    def _images(self, label: int, seeds: list[int]) -> Tensor:
        count = len(seeds)
        guidance = np.full(count, self.sampler.guidance_scale, dtype=np.float32)
        start, labels = initial_noise(seeds, self.graph.state_shape), np.full(count, label, dtype=np.int64)
        return torch.from_numpy(sample(self.graph, self.table, start, labels, self.null_row, guidance, self.decoder))
