"""More conditions for a model than it was trained with: a condition is a row of the label embedding, so rows are added."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from erasediff.models.pipeline import ClassConditionalPipeline


def embedding_of(model: ClassConditionalPipeline) -> Tensor:
    """The label embedding ``[classes + 1, E]``."""
    table: Tensor = model.unet.class_embedding.weight.detach()
    return table


def with_conditions(model: ClassConditionalPipeline, rows: Tensor) -> tuple[ClassConditionalPipeline, tuple[int, ...]]:
    """A copy of a model that also knows the conditions ``rows [K,E]``, and the labels they are asked for by."""
    unet, table = copy.deepcopy(model.unet), embedding_of(model)
    unet.class_embedding = nn.Embedding(len(table) + len(rows), table.shape[1], _weight=torch.cat([table, rows.to(table)]))
    return ClassConditionalPipeline(unet, model.scheduler), tuple(range(len(table), len(table) + len(rows)))
