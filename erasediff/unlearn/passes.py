"""Count the denoiser passes of an erasure by hooks, so that every method's passes are counted."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor


class PassCounter:
    """Counts forward passes through the hooked modules, and backward passes through their predictions."""

    def __init__(self, *modules: torch.nn.Module) -> None:
        self.forward = self.backward = 0
        self._counting = Lock()  # the retain and the forget side of a step may be in two threads
        for module in modules:
            module.register_forward_hook(self._on_forward)

    def _on_forward(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        with self._counting:
            self.forward += 1
        prediction: Tensor = outputs[0]
        if prediction.requires_grad:
            prediction.register_hook(self._on_backward)  # type: ignore[no-untyped-call]

    def _on_backward(self, gradient: Tensor) -> None:
        with self._counting:
            self.backward += 1
