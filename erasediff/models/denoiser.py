"""What a denoiser is called with, images as numbers in -1..1, and the device it is on."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from erasediff.errors import BadInput


class Denoiser(Protocol):
    """ε_θ(x_t, t, c): anything that predicts the noise in a batch, or its velocity.

    The condition c is an ``int64`` label: a class, or the row of a prompt in a table of embeddings.
    """

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict ``[B,C,H,W]`` for ``noised [B,C,H,W]``, ``timesteps [B]`` and ``labels [B]``."""
        ...


def to_unit(images: Tensor) -> Tensor:
    """``uint8 [N,H,W,C]`` in 0..255 to ``float32 [N,C,H,W]`` in -1..1."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def to_bytes(images: Tensor) -> Tensor:
    """``float32 [N,C,H,W]`` in -1..1 to ``uint8 [N,H,W,C]`` in 0..255."""
    return images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        BadInput: the config names CUDA and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("device is 'cuda' but torch sees no GPU: use device 'auto' or 'cpu', or install a CUDA build.")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
