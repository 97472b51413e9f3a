"""Probes by the label embedding: an erasure that moved the embedding and little else is undone by moving it back.

A condition is a row of the embedding, so a model gets more conditions by more rows. :func:`kinship` measures whether a network was made from the
base: only such a network can read the base's embedding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.records.policy import BASE_EMBEDDING


def embedding_of(model: ClassConditionalPipeline) -> Tensor:
    """The label embedding ``[classes + 1, E]``."""
    table: Tensor = model.unet.class_embedding.weight.detach()
    return table


def with_conditions(model: ClassConditionalPipeline, rows: Tensor) -> tuple[ClassConditionalPipeline, tuple[int, ...]]:
    """A copy of a model that also knows the conditions ``rows [K,E]``, and the labels they are asked for by."""
    unet, table = copy.deepcopy(model.unet), embedding_of(model)
    unet.class_embedding = nn.Embedding(len(table) + len(rows), table.shape[1], _weight=torch.cat([table, rows.to(table)]))
    return ClassConditionalPipeline(unet, model.scheduler), tuple(range(len(table), len(table) + len(rows)))


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


READER = "time_emb_proj"
"""diffusers' name for the layers of a denoiser that read the sum of time and label embedding."""


def kinship(base: nn.Module, other: nn.Module) -> float | None:
    """How alike two networks read their label embedding, from -1 to 1: about 1 for a copy that was trained on, 0 for one trained apart.

    The correlation of the entries off the diagonal of G = Σ WᵀW ``[E,E]`` over the layers W ``[out,E]`` that read the embedding. For
    networks of independent weights its standard deviation is √(2/(E(E-1))), 0.022 at E = 64. Permuting, negating or
    rotating the outputs of those layers, together with the layers that read them, does not change G. So renaming channels cannot
    hide a network's origin. ``None`` where the networks have no such layers, or not the same.
    """
    of_base, of_other = _reading(base), _reading(other)
    if of_base is None or of_other is None or of_base.shape != of_other.shape:
        return None
    above = torch.triu_indices(len(of_base), len(of_base), offset=1)
    found = float(torch.corrcoef(torch.stack([of_base[*above], of_other[*above]]))[0, 1])
    return found if math.isfinite(found) else None


def _reading(unet: nn.Module) -> Tensor | None:
    """G ``[E,E]``, if the layers read one embedding."""
    weights = [
        layer.weight.detach().double().cpu()
        for name, layer in unet.named_modules()
        if name.rpartition(".")[2] == READER and isinstance(layer, nn.Linear)
    ]
    if not weights or len({weight.shape[1] for weight in weights}) > 1:
        return None
    return torch.stack([weight.T @ weight for weight in weights]).sum(0)
