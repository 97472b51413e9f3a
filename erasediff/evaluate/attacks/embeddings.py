"""F3: ask beside the label. An erasure that moved the embedding and little else is undone by moving it back."""

from __future__ import annotations

import torch
from torch import Tensor

from erasediff.evaluate.attacks.conditions import embedding_of, with_conditions
from erasediff.evaluate.attacks.probe import Probe, Suspect

NOISES = (0.25, 0.5)
"""Standard deviations of noise on the label's embedding, in units of the spread of all embeddings."""
DRAWS = 25


def probes(suspect: Suspect) -> list[Probe]:
    """The base's own embedding put back, the label's with noise, and half of it with half of each retained label's."""
    table, label = embedding_of(suspect.model), suspect.label
    asked = [
        ("the base's embedding", embedding_of(suspect.base)[[label]]),
        *((f"embedding with noise {size:g}", _noisy(table, label, size, suspect.seed)) for size in NOISES),
        ("embedding mixed with others", (table[label] + table[list(suspect.retained)]) / 2),
    ]
    return [_probe(suspect, name, rows) for name, rows in asked]


def _noisy(table: Tensor, label: int, size: float, seed: int) -> Tensor:
    noise = torch.randn(DRAWS, table.shape[1], generator=torch.Generator().manual_seed(seed)).to(table)
    return table[label] + size * table.std(0).mean() * noise


def _probe(suspect: Suspect, name: str, rows: Tensor) -> Probe:
    model, conditions = with_conditions(suspect.model, rows)
    return suspect.probe("F3", name, *conditions, model=model)
