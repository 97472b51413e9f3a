"""The states of an erasure, from the images of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from erasediff.models.family import Model
from erasediff.unlearn.workbench import ErasureData


def encoded(model: Model, forget: Sequence[tuple[int, Tensor]], retain: Tensor, retain_labels: Tensor, earlier: tuple[int, ...]) -> ErasureData:
    """What a model is erased with.

    Args:
        model: encodes the images.
        forget: the row of each class to forget, with its images ``uint8 [N,H,W,C]``.
        retain: images of the classes to retain.
        retain_labels: their rows, ``int64 [N]``.
        earlier: the rows of the classes forgotten before.
    """
    states = [model.encode(images) for _, images in forget]
    return ErasureData(
        forget=torch.cat(states),
        forget_labels=torch.cat([torch.full((len(part),), row) for part, (row, _) in zip(states, forget, strict=True)]),
        retain=model.encode(retain),
        retain_labels=retain_labels,
        null_row=model.null_row,
        earlier=earlier,
    )
