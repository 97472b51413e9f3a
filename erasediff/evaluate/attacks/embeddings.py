"""Probes by the label embedding: an erasure that moved the embedding and little else is undone by moving it back.

A model gets more conditions by more rows. :func:`kinship` measures whether a network was made from the
base: only such a network can read the base's embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.family import Model
from erasediff.records.policy import BASE_EMBEDDING


def with_conditions(model: Model, rows: Tensor) -> tuple[Model, tuple[int, ...]]:
    """A copy of a model that also knows the conditions ``rows [R,…]``, and the labels they are asked for by."""
    table = model.rows()
    return model.with_rows(torch.cat([table, rows.to(table)])), tuple(range(len(table), len(table) + len(rows)))


NOISE, DRAWS = 0.5, 25
"""Standard deviation of noise on the label's embedding, in units of the spread of all embeddings, and how many are tried."""


def _of_base(suspect: Suspect) -> Tensor:
    """The row that asked the base for the class ``[1,E]``."""
    return suspect.base.rows()[[suspect.label]]


def _noisy(suspect: Suspect) -> Tensor:
    """The label's row with noise ``[DRAWS,E]``."""
    table = suspect.model.rows()
    noise = torch.randn(DRAWS, *table.shape[1:], generator=torch.Generator().manual_seed(suspect.seed)).to(table)
    return table[suspect.label] + NOISE * table.std(0).mean() * noise


def _mixed(suspect: Suspect) -> Tensor:
    """Half of the label's row with half of each retained label's ``[K,E]``."""
    table = suspect.model.rows()
    return (table[suspect.label] + table[list(suspect.retained)]) / 2


def _probe_with(name: str, rows: Callable[[Suspect], Tensor]) -> Callable[[Suspect], Probe]:
    def probe(suspect: Suspect) -> Probe:
        model, conditions = with_conditions(suspect.model, rows(suspect))
        return suspect.probe(name, *conditions, model=model)

    return probe


PROBES = {name: _probe_with(name, rows) for name, rows in {BASE_EMBEDDING: _of_base, "noisy embedding": _noisy, "mixed embedding": _mixed}.items()}


def kinship(base: Model, other: Model) -> float | None:
    """How alike two networks read their rows, from -1 to 1: about 1 for a copy that was trained on, 0 for one trained apart.

    The correlation of the entries off the diagonal of G = Σ WᵀW ``[E,E]`` over the layers W ``[out,E]`` that read one vector, and of several
    such G where a model has several tables. For networks of independent weights its standard deviation is √(2/(E(E-1))), 0.022 at E = 64.
    Permuting, negating or rotating the outputs of those layers, together with the layers that read them, does not change G. So renaming channels
    cannot hide a network's origin. ``None`` where the networks have no such layers, or not the same.
    """
    of_base, of_other = _reading(base), _reading(other)
    if of_base is None or of_other is None or of_base.shape != of_other.shape:
        return None
    found = float(torch.corrcoef(torch.stack([of_base, of_other]))[0, 1])
    return found if math.isfinite(found) else None


def _reading(model: Model) -> Tensor | None:
    """The entries of every G above its diagonal, if the layers of each group read one vector."""
    entries = []
    for layers in model.readers():
        weights = [layer.weight.detach().double().cpu() for layer in layers]
        if not weights or len({weight.shape[1] for weight in weights}) > 1:
            return None
        gram = torch.stack([weight.T @ weight for weight in weights]).sum(0)
        entries.append(gram[*torch.triu_indices(len(gram), len(gram), offset=1)])
    return torch.cat(entries) if entries else None
