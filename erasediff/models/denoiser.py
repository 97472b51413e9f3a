"""The interface of a model, which predicts noise under a condition, and the class-conditional UNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.records.config import DenoiserConfig


class Denoiser(Protocol):
    """ε_θ(x_t, t, c): anything that predicts the noise in a batch, or its velocity.

    The condition c is an ``int64`` label: a class, or the row of a prompt in a table of embeddings.
    """

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict ``[B,C,H,W]`` for ``noised [B,C,H,W]``, ``timesteps [B]`` and ``labels [B]``."""
        ...


@dataclass(frozen=True)
class UNetDenoiser:
    """A diffusers ``UNet2DModel`` with one class embedding more than there are classes: the last is the null label."""

    unet: torch.nn.Module

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """See :class:`Denoiser`."""
        prediction: Tensor = self.unet(noised, timesteps, class_labels=labels, return_dict=False)[0]
        return prediction


def build_unet(config: DenoiserConfig, channels: int, size: int, classes: int) -> torch.nn.Module:
    """A class-conditional UNet for images ``[channels, size, size]`` with self-attention at its coarsest level."""
    from diffusers import UNet2DModel

    plain = len(config.block_out_channels) - 1
    unet: torch.nn.Module = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        num_class_embeds=classes + 1,
        resnet_time_scale_shift="scale_shift" if config.conditioning == "scale-shift" else "default",
    )
    return unet


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
