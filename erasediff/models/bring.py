"""Read a class-conditional model that was trained elsewhere, in the layouts that diffusers and its users save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.autoencoder import load_autoencoder
from erasediff.models.families.dit import DiT, build_transformer_of
from erasediff.models.families.unet import ClassConditionalUNet, build_unet_of
from erasediff.models.family import Model
from erasediff.models.layout import PART_CONFIG, check_there, read_json
from erasediff.models.parts import find_weights, read_weights
from erasediff.models.process import read_scheduler

_DENOISERS = ("unet_ema", "unet", "transformer", "")
"""Where the denoiser may lie, the averaged weights first; a folder of one model holds it itself."""
_SCHEDULERS = ("scheduler/scheduler_config.json", "scheduler_config.json")
_ADAPTERS = ("adapter_config.json", "pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_UNCONDITIONAL = (
    "is an unconditional model, so there is no class to ask it for: hand in a model with class labels, or train it anew without the images"
)


@dataclass(frozen=True)
class Brought:
    """A model from elsewhere, in float32, and what was chosen where its folder left a choice."""

    model: Model
    notes: tuple[str, ...]


def bring(source: Path, classes: int) -> Brought:
    """Read a diffusers folder, or one file of weights that has a config and a scheduler beside it.

    A folder may be whole or in shards, of one variant such as fp16, with ``unet_ema`` or ``unet`` or ``transformer``, with or without
    ``model_index.json``.

    Args:
        source: the folder, or a ``.safetensors`` file.
        classes: how many classes the model has; a UNet with one embedding more has a null row.

    Raises:
        BadInput: it is no class-conditional model with a scheduler, is of another number of classes, or its weights are pickles, damaged or not
            finite.
    """
    check_there(source)
    folder = source if source.is_dir() else source.parent
    if found := next((name for name in _ADAPTERS if any(folder.rglob(name))), None):
        raise BadInput(f"{folder} holds an adapter ({found}) and no whole model: merge it into its base, and hand in the merged model.")
    notes: list[str] = []
    if source.is_dir():
        denoiser = next((folder / name for name in _DENOISERS if (folder / name / PART_CONFIG).is_file()), None)
        if denoiser is None:
            raise BadInput(f"{folder} has no unet/{PART_CONFIG} and no {PART_CONFIG}: hand in a diffusers folder with a class-conditional model.")
        if denoiser.name == "unet_ema" and (folder / "unet" / PART_CONFIG).is_file():
            notes.append("unet_ema was taken, and not unet: samples are made by the averaged weights")
        weights, chosen = find_weights(denoiser)
    else:
        denoiser, weights, chosen = folder, _of_one_file(source), []
    scheduler = next((folder / name for name in _SCHEDULERS if (folder / name).is_file()), None)
    if scheduler is None:
        raise BadInput(f"{folder} has no scheduler/scheduler_config.json, so nothing says how it was noised: add the scheduler that trained it.")
    config, made = read_json(denoiser / PART_CONFIG), read_scheduler(read_json(scheduler), str(folder))
    model = _model(config, weights, denoiser, made, classes)
    return Brought(model, (*notes, *chosen))


def _of_one_file(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        raise BadInput(f"{file} is no .safetensors file: convert the weights to safetensors; pickles are never loaded.")
    if not (file.parent / PART_CONFIG).is_file():
        raise BadInput(f"{file} has no {PART_CONFIG} beside it, so nothing says what it is: put the model's config and scheduler_config.json there.")
    return read_weights(file)


def _model(config: dict[str, Any], weights: dict[str, Tensor], denoiser: Path, scheduler: Any, classes: int) -> Model:
    if config.get("num_embeds_ada_norm"):
        transformer = build_transformer_of(config, weights, denoiser)
        autoencoder = load_autoencoder(denoiser.parent if denoiser.name == "transformer" else denoiser)
        return _checked(DiT.of(transformer, scheduler, autoencoder), classes, denoiser)
    if config.get("_class_name") == "UNet2DModel" and not config.get("num_class_embeds"):
        raise BadInput(f"{denoiser} {_UNCONDITIONAL}.")
    unet = build_unet_of(config, weights, denoiser)
    null_label = config["num_class_embeds"] == classes + 1
    return _checked(ClassConditionalUNet.of(unet, scheduler, null_label), classes, denoiser)


def _checked(model: Model, classes: int, denoiser: Path) -> Model:
    if model.conditions != classes:
        raise BadInput(
            f"{denoiser} has {len(model.rows())} class embeddings, and {classes} classes are named: name those that it was trained on; at most one "
            "embedding more may stand for no class."
        )
    return model
