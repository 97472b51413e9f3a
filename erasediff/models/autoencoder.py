"""The autoencoder of a latent model: diffusers' ``AutoencoderKL``, images to latents and back, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.models.configs import check_config, check_layers
from erasediff.models.denoiser import to_bytes, to_unit
from erasediff.models.layout import read_json
from erasediff.models.parts import UNLOADABLE, load_pretrained, no_such_model

_BATCH = 8


@dataclass(frozen=True)
class Autoencoder:
    """A frozen ``AutoencoderKL``."""

    network: Any

    @property
    def channels(self) -> int:
        """C of a latent."""
        return int(self.network.config.latent_channels)

    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """``(C, H, W)`` of the image of a latent ``(C, H, W)``."""
        factor = 2 ** (len(self.network.config.block_out_channels) - 1)
        return int(self.network.config.out_channels), latent[1] * factor, latent[2] * factor

    @torch.no_grad()
    def encode(self, images: Tensor, done: Callable[[int], None] = lambda count: None) -> Tensor:
        """Latents ``float32 [N,C,h,w]`` on the CPU of ``uint8 [N,H,W,C]``: the posterior's mean, so nothing is random.

        Args:
            images: of the model's size.
            done: called with the number of images done.
        """
        device, latents = next(self.network.parameters()).device, []
        for start in range(0, len(images), _BATCH):
            batch = to_unit(images[start : start + _BATCH]).to(device)
            latents.append(self.network.encode(batch).latent_dist.mean.float().cpu())
            done(min(start + _BATCH, len(images)))
        # A convolution may hand over channels last, and torch 2.13 crashes in the backward pass of a group norm over such an input.
        return ((torch.cat(latents) - self._shift) * self._scale).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images ``uint8 [N,H,W,C]`` of latents ``float32 [N,C,h,w]``."""
        decoder = self.decoder()
        return torch.cat([to_bytes(decoder(part)) for part in torch.split(latents, _BATCH)])

    def decoder(self) -> nn.Module:
        """Images in -1..1 of latents, as one module."""
        return _Decoder(self.network, self._scale, self._shift)

    @property
    def _scale(self) -> float:
        return float(self.network.config.scaling_factor)

    @property
    def _shift(self) -> float:
        return float(self.network.config.get("shift_factor") or 0.0)


class _Decoder(nn.Module):
    def __init__(self, vae: Any, scale: float, shift: float) -> None:
        super().__init__()
        self.vae, self.scale, self.shift = vae, scale, shift

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.vae.decode(latents / self.scale + self.shift, return_dict=False)[0]
        return images


def load_autoencoder(folder: Path) -> Autoencoder:
    """Read the autoencoder of a model folder, in float32.

    Raises:
        BadInput: it is another model, or its weights are not its own or not finite.
    """
    from diffusers import AutoencoderKL

    config = read_json(folder / "vae/config.json")
    if (kind := config.get("_class_name")) != "AutoencoderKL":
        raise BadInput(f"the vae of {folder} is a {kind} and not an AutoencoderKL: hand in the autoencoder that made the latents.")
    try:
        check_config(AutoencoderKL, config)
        check_layers(config)
        if config.get("scaling_factor") == 0:
            raise ValueError("scaling_factor is 0")
        with torch.device("meta"), torch.no_grad():  # it is called without memory first
            drawn = AutoencoderKL.from_config(config).eval()
            latent = Autoencoder(drawn).channels, 8, 8
            image = Autoencoder(drawn).image_shape(latent)
            decoded = drawn.decode(torch.empty(1, *latent)).sample
            encoded = drawn.encode(torch.empty(1, *image)).latent_dist.mean
        if (tuple(decoded.shape), tuple(encoded.shape)) != ((1, *image), (1, *latent)):
            raise ValueError(f"of {list(latent)} it makes {list(decoded.shape[1:])}, and of {list(image)} {list(encoded.shape[1:])}")
    except UNLOADABLE as error:
        raise no_such_model(AutoencoderKL, folder / "vae", error) from None
    return Autoencoder(load_pretrained(folder, "vae", AutoencoderKL))
