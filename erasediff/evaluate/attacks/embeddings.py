"""Ask beside the label: an erasure that moved the embedding and little else is undone by moving it back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from erasediff.evaluate.attacks.conditions import embedding_of, with_conditions
from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.records.policy import BASE_EMBEDDING

NOISE, DRAWS = 0.5, 25
"""Standard deviation of noise on the label's embedding, in units of the spread of all embeddings, and how many are tried."""


def _of_base(suspect: Suspect) -> Tensor:
    """The row that asked the base for the class ``[1,E]``."""
    return embedding_of(suspect.base)[[suspect.label]]


def _noisy(suspect: Suspect) -> Tensor:
    """The label's row with noise ``[DRAWS,E]``."""
    table = embedding_of(suspect.model)
    noise = torch.randn(DRAWS, table.shape[1], generator=torch.Generator().manual_seed(suspect.seed)).to(table)
    return table[suspect.label] + NOISE * table.std(0).mean() * noise


def _mixed(suspect: Suspect) -> Tensor:
    """Half of the label's row with half of each retained label's ``[K,E]``."""
    table = embedding_of(suspect.model)
    return (table[suspect.label] + table[list(suspect.retained)]) / 2


def _probe_with(name: str, rows: Callable[[Suspect], Tensor]) -> Callable[[Suspect], Probe]:
    def probe(suspect: Suspect) -> Probe:
        model, conditions = with_conditions(suspect.model, rows(suspect))
        return suspect.probe(name, *conditions, model=model)

    return probe


PROBES = {name: _probe_with(name, rows) for name, rows in {BASE_EMBEDDING: _of_base, "noisy embedding": _noisy, "mixed embedding": _mixed}.items()}
