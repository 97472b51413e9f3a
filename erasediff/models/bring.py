"""Read a class-conditional UNet that was trained elsewhere, in the layouts that diffusers and its users save."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from erasediff.errors import BadInput
from erasediff.models.folder import build_checked, read_weights
from erasediff.models.layout import read_json
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.models.process import read_scheduler

_DENOISERS = ("unet_ema", "unet", "")
"""Where the denoiser may lie, the averaged weights first; a folder of one ``UNet2DModel`` holds it itself."""
_SCHEDULERS = ("scheduler/scheduler_config.json", "scheduler_config.json")
_INDEX = "diffusion_pytorch_model.safetensors.index.json"
_VARIANT = re.compile(r"^diffusion_pytorch_model(\.[A-Za-z0-9_-]+)?\.safetensors$")
_ADAPTERS = ("adapter_config.json", "pytorch_lora_weights.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class Brought:
    """A model from elsewhere, in float32, and what was chosen where its folder left a choice."""

    pipeline: ClassConditionalPipeline
    notes: tuple[str, ...]


def bring(folder: Path) -> Brought:
    """Read a diffusers folder: whole or in shards, of one variant such as fp16, ``unet_ema`` before ``unet``, with or without ``model_index.json``.

    Raises:
        BadInput: it is not a class-conditional ``UNet2DModel`` with a scheduler, or its weights are pickles, damaged or not finite.
    """
    if not folder.is_dir():
        raise BadInput(f"the model folder {folder} does not exist: check the path.")
    if found := next((name for name in _ADAPTERS if any(folder.rglob(name))), None):
        raise BadInput(f"{folder} holds an adapter ({found}) and no whole model: merge it into its base, and hand in the merged model.")
    denoiser = next((folder / name for name in _DENOISERS if (folder / name / "config.json").is_file()), None)
    if denoiser is None:
        raise BadInput(f"{folder} has no unet/config.json and no config.json: hand in a diffusers folder with a UNet2DModel.")
    notes = []
    if denoiser.name == "unet_ema" and (folder / "unet/config.json").is_file():
        notes.append("unet_ema was taken, and not unet: samples are made by the averaged weights")
    weights, chosen = _weights(denoiser)
    scheduler = next((folder / name for name in _SCHEDULERS if (folder / name).is_file()), None)
    if scheduler is None:
        raise BadInput(f"{folder} has no scheduler/scheduler_config.json, so nothing says how it was noised: add the scheduler that trained it.")
    unet = build_checked(read_json(denoiser / "config.json"), weights, denoiser)
    return Brought(ClassConditionalPipeline(unet, read_scheduler(read_json(scheduler), str(folder))), (*notes, *chosen))


def _weights(denoiser: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors in float32, and what was chosen."""
    if (denoiser / _INDEX).is_file():
        return _sharded(denoiser, read_json(denoiser / _INDEX)), []
    files = sorted(path for path in denoiser.glob("*.safetensors") if _VARIANT.match(path.name))
    if not files:
        pickled = any(denoiser.glob("*.bin"))
        what = "only pickles, which are never loaded: save it with safe_serialization=True" if pickled else "no weights: hand in the whole folder"
        raise BadInput(f"{denoiser} holds {what}.")
    plain = [path for path in files if path.name == "diffusion_pytorch_model.safetensors"]
    if not plain and len(files) > 1:
        raise BadInput(f"{denoiser} holds {len(files)} variants of its weights and none without a name: keep one of them.")
    chosen = (plain or files)[0]
    notes = [f"{chosen.name} was taken"] if len(files) > 1 or not plain else []
    return _in_float32(read_weights(chosen)), notes


def _sharded(denoiser: Path, index: dict[str, Any]) -> dict[str, torch.Tensor]:
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) and Path(name).name == name for name in placed.values()):
        raise BadInput(f"{denoiser / _INDEX} names no shards: hand in the whole folder.")
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(set(placed.values())):
        if not (denoiser / name).is_file():
            raise BadInput(f"{denoiser} lacks {name}, which its index names: hand in the whole folder.")
        weights |= read_weights(denoiser / name)
    return _in_float32(weights)


def _in_float32(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
