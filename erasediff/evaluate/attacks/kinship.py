"""Measure whether a network was made from the base: only such a network can read the base's embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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
