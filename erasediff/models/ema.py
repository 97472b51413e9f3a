"""An exponential moving average of weights that keeps almost no share of the initial weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch


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
