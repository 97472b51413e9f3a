"""Counters of real calls, by global hooks: nothing that is measured can forget to count itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from diffusers import UNet2DModel
from diffusers.models.autoencoders.vae import Encoder
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from transformers import CLIPTextModel


class Counter:
    """Watches every forward call while it counts."""

    @contextmanager
    def counted(self) -> Iterator[Self]:
        handle = register_module_forward_hook(self._forward)
        try:
            yield self
        finally:
            handle.remove()

    def _forward(self, module: nn.Module, inputs: object, outputs: Any) -> None:
        raise NotImplementedError


class Passes(Counter):
    """Counts real forward calls of every UNet there is, and real backward passes through their outputs."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    def _forward(self, module: nn.Module, inputs: object, outputs: Any) -> None:
        if isinstance(module, UNet2DModel):
            self.forward += 1
            if outputs[0].requires_grad:
                outputs[0].register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        self.backward += 1


class Calls(Counter):
    """Counts forward calls of every text encoder and every VAE encoder there is."""

    def __init__(self) -> None:
        self.text = self.image = 0

    def _forward(self, module: nn.Module, inputs: object, outputs: Any) -> None:
        self.text += isinstance(module, CLIPTextModel)
        self.image += isinstance(module, Encoder)
