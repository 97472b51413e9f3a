"""Class-conditional UNets on pixels: diffusers' ``UNet2DModel`` with class embeddings, of which the last may be the null row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.models.asked import asked_rows, asked_sampler, asked_seeds
from erasediff.models.configs import shown
from erasediff.models.denoiser import Denoiser
from erasediff.models.family import Shape, TabledModel
from erasediff.models.layout import INDEX, network_folder, read_json
from erasediff.models.named import classes_in
from erasediff.models.parts import build_part, read_part
from erasediff.models.process import read_scheduler
from erasediff.records.config import MAX_SIDE, DenoiserConfig

_READER = "time_emb_proj"
"""diffusers' name for the layers that read the sum of the time's and the class's embedding."""


class ClassConditionalPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A ``UNet2DModel`` with class labels, and the scheduler that samples from it, as a diffusers pipeline.

    The folder is in plain diffusers layout: ``unet/`` and ``scheduler/`` load in diffusers without this package.
    """

    def __init__(self, unet: nn.Module, scheduler: Any, null_label: bool = True, id2label: Mapping[int, str] | None = None) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        if not null_label:
            self.register_to_config(null_label=False)
        if id2label is not None:
            self.register_to_config(id2label=dict(id2label))

    @torch.no_grad()
    def __call__(self, labels: Tensor | Sequence[int | str], seeds: Sequence[int], steps: int = 25, guidance_scale: float = 1.0) -> Tensor:
        """Sample one image for each label.

        Args:
            labels: rows of classes, ``int64 [N]``, or the names of the classes.
            seeds: one seed an image; an image depends on its own seed and label alone, not on the batch it is in.
            steps: denoiser calls an image.
            guidance_scale: w of classifier-free guidance; 1 is the conditional model and needs no second call.

        Returns:
            ``uint8 [N,H,W,C]``.

        Raises:
            BadInput: a label, a seed, the steps or the guidance is none that the model can be asked by.
        """
        model = ClassConditionalUNet.of(self.unet, self.scheduler, self.config.get("null_label", True) is not False)
        classes = classes_in(self.config, model.conditions, "the model")
        rows, asked = asked_rows(labels, model, classes), asked_sampler(steps, guidance_scale)
        return model.sample(rows, asked_seeds(seeds, len(rows)), asked.steps, asked.guidance_scale)


@dataclass(frozen=True)
class UNetDenoiser:
    """A diffusers ``UNet2DModel``, whose class labels are the rows."""

    unet: nn.Module

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """See :class:`erasediff.models.denoiser.Denoiser`."""
        prediction: Tensor = self.unet(noised, timesteps, class_labels=labels, return_dict=False)[0]
        return prediction


@dataclass(frozen=True)
class ClassConditionalUNet(TabledModel):
    """See :mod:`erasediff.models.families.unet`; a folder is a :class:`ClassConditionalPipeline`."""

    kind = "ClassConditionalPipeline"

    @classmethod
    def of(cls, unet: nn.Module, scheduler: Any, null_label: bool = True) -> Self:
        """A model of a UNet whose last class embedding is the null row, or of one without a null row."""
        count = int(unet.config.num_class_embeds) - null_label  # type: ignore[union-attr, arg-type]
        return cls(unet, scheduler, count, count if null_label else None)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~erasediff.models.family.Model`."""
        unet = build_unet_of(*read_part(network_folder(folder)), network_folder(folder))
        scheduler = read_scheduler(read_json(folder / "scheduler/scheduler_config.json"), str(folder))
        return cls.of(unet, scheduler, read_json(folder / INDEX).get("null_label", True) is not False)

    def save(self, folder: Path) -> None:
        """See :class:`~erasediff.models.family.Model`."""
        self.pipeline().save_pretrained(folder, safe_serialization=True)

    def pipeline(self) -> ClassConditionalPipeline:
        """The model as diffusers knows it."""
        return ClassConditionalPipeline(self.network, self.scheduler, self.null_row is not None)

    @property
    def state_shape(self) -> Shape:
        """``(C, H, W)`` of one image."""
        return _state_of(self.network)

    @property
    def image_shape(self) -> Shape:
        """``(C, H, W)`` of one image."""
        return self.state_shape

    def denoiser_of(self, network: nn.Module) -> Denoiser:
        """See :class:`~erasediff.models.family.Model`."""
        return UNetDenoiser(network)

    def table_names(self) -> tuple[str, ...]:
        """The class embedding."""
        return ("class_embedding",)

    def readers(self) -> Sequence[Sequence[nn.Linear]]:
        """The projections into the residual blocks, all of one vector."""
        named = self.network.named_modules()
        return [[layer for name, layer in named if name.rpartition(".")[2] == _READER and isinstance(layer, nn.Linear)]]


def _state_of(network: Any) -> Shape:
    config = network.config
    size = config.sample_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(config.in_channels), int(height), int(width)


def build_unet_of(config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> nn.Module:
    """The ``UNet2DModel`` of a config with its weights; ``folder`` is where errors say they lie.

    Raises:
        BadInput: it is not a class-conditional ``UNet2DModel``, or the weights are not its own or not finite.
    """
    from diffusers import UNet2DModel

    if (kind := config.get("class_embed_type")) is not None:
        raise BadInput(f"the denoiser of {folder} embeds its classes by class_embed_type {shown(kind)}: hand in one with a table of them (null).")
    if config.get("_class_name") != "UNet2DModel" or not config.get("num_class_embeds"):
        raise BadInput(f"the denoiser of {folder} is not a class-conditional UNet2DModel: hand in a model with class labels.")
    size = config.get("sample_size")
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise BadInput(
            f"unet/config.json of {folder} has sample_size {shown(size)}, so nothing says how large its images are: set it to their side in pixels."
        )
    if max(sides) > MAX_SIDE:
        raise BadInput(f"{folder} makes images of {sides[1]}x{sides[0]} pixels: sides go up to {MAX_SIDE}, so hand in a model of smaller images.")
    if config.get("in_channels") != config.get("out_channels"):
        raise BadInput(
            f"the denoiser of {folder} takes and returns images of other channels: hand in one that predicts epsilon or v_prediction alone."
        )
    return build_part(UNet2DModel, config, weights, folder, UNetDenoiser, _state_of)


def build_unet(config: DenoiserConfig, channels: int, size: int, classes: int) -> nn.Module:
    """A class-conditional UNet for images ``[channels, size, size]`` with self-attention at its coarsest level."""
    from diffusers import UNet2DModel

    plain = len(config.block_out_channels) - 1
    unet: nn.Module = UNet2DModel(
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
