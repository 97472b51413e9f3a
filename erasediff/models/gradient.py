"""A gradient apart from the parameters' ``.grad``, which threads would share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gradient_of(loss: Tensor, weights: Sequence[Tensor], *, keep_graph: bool = False) -> list[Tensor]:
    """What ``backward`` would leave in the ``.grad`` of weights that have none: one tensor a weight, to be changed in place.

    ``torch.autograd.grad`` may return one tensor for two weights that are added, an expanded one after a sum, or a transposed
    one after a product. Fused optimisers pair the elements of a weight and its gradient by their order in memory, so each
    gradient is laid out like its weight.

    Args:
        loss: a scalar.
        weights: leaves; those that the loss does not depend on have a gradient of 0.
        keep_graph: another gradient of the same graph will follow.
    """
    known: set[int] = set()
    own = []
    for weight, tensor in zip(weights, torch.autograd.grad(loss, list(weights), retain_graph=keep_graph, materialize_grads=True), strict=True):
        apart = tensor.stride() == weight.stride() and tensor.data_ptr() not in known
        own.append(tensor if apart else torch.empty_like(weight, requires_grad=False).copy_(tensor))
        known.add(tensor.data_ptr())
    return own
