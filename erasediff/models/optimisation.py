"""What training a base and erasing from it share: the decay of a rate, gradients apart, two computations at once, the moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor


def linear_decay(step: int, steps: int, fraction: float) -> float:
    """1 until the last ``fraction`` of ``steps``, then falling linearly towards 0; always 1 at fraction 0."""
    return min(1.0, (steps - step) / max(1.0, fraction * steps))


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


A = TypeVar("A")
B = TypeVar("B")


def side_by_side(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Run two functions that share only read-only data, the first in its own thread, the second in this one; return both results.

    Gradients come from :func:`erasediff.models.optimisation.gradient_of`, as threads would share a parameter's ``.grad``. Each function
    computes with as many threads as it would alone, so its result is the same to the last bit.

    Raises:
        Exception: what one of them raised, once both have ended; the first's where both did.
    """
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(first)
        try:
            beside = second()
        except Exception:
            ahead.result()
            raise
        return ahead.result(), beside


class ExponentialMovingAverage:
    """θ̄ ← d_k·θ̄ + (1-d_k)·θ with d_k = min(decay, (1+k)/(10+k)).

    It starts from the current weights. The warm-up makes the first weights' share vanish: after n updates it is
    ∏ d_k, which :attr:`initial_share` keeps count of. A fixed decay of 0.99 over 288 updates would keep 5.5 %.
    """

    def __init__(self, model: torch.nn.Module, decay: float, device: torch.device | None = None) -> None:
        """Start from the current weights; on ``device``, where given, to spare the memory of the one that trains."""
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        if device is not None:
            self.model.to(device)
        self._weights: list[torch.Tensor] = list(self.model.parameters())
        self.decay = decay
        self.updates = 0
        self.initial_share = 1.0

    @torch.no_grad()
    def update(self, weights: Sequence[torch.Tensor]) -> None:
        """Take in one step's weights, in the order of the model's parameters."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        there = [new.to(old.device) for old, new in zip(self._weights, weights, strict=True)]
        torch._foreach_lerp_(self._weights, there, 1 - decay)
        self.initial_share *= decay
        self.updates += 1
