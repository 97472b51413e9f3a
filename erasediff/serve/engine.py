"""Sample one batch of several requests with the graph and a solver's table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from erasediff.serve.batches import Images
from erasediff.serve.request import SamplingRequest
from erasediff.serve.solver import Decoder, Graph, SolverTable, initial_noise, sample


@dataclass(frozen=True)
class Engine:
    """A graph with the table of its solver. It is a :data:`erasediff.serve.batches.Sampler`."""

    graph: Graph
    table: SolverTable
    state_shape: tuple[int, int, int]
    null_row: int | None
    decoder: Decoder | None = None

    def __call__(self, asked: list[SamplingRequest]) -> Images:
        """Images ``uint8 [N,H,W,C]`` of requests, in their order."""
        counts = [one.count for one in asked]
        labels = np.repeat(np.array([one.label for one in asked], dtype=np.int64), counts)
        guidance = np.repeat(np.array([one.guidance for one in asked], dtype=np.float32), counts)
        start = initial_noise([seed for one in asked for seed in one.seeds], self.state_shape)
        return sample(self.graph, self.table, start, labels, self.null_row, guidance, self.decoder)
