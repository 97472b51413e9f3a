"""Model folders: diffusers layout, safetensors only, digests checked on load, nothing unpickled."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from erasediff.errors import BadInput
from erasediff.files import publish_folder, sha256_file, sha256_folder
from erasediff.models.layout import WEIGHTS, check_layout, check_rest, check_weights, read_json
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.models.process import read_scheduler
from erasediff.records.base import Pointer
from erasediff.records.core import ModelRecord


def save_model(
    unet: torch.nn.Module, scheduler: Any, models: Path, dataset: str, class_names: Sequence[str], forgotten: Collection[str]
) -> ModelRecord:
    """Save a model under ``models/<digest of its weights>`` and describe it.

    Args:
        unet: a diffusers ``UNet2DModel``; its weights are saved as float32 safetensors.
        scheduler: the diffusers scheduler that serves.
        models: the folder of model folders.
        dataset: the name of the dataset it was trained on.
        class_names: the names of its classes, in the order of its embedding.
        forgotten: classes that it has been made to forget.

    Raises:
        BadInput: it has not as many classes as there are names.
    """
    pipeline = ClassConditionalPipeline(unet, scheduler)
    if pipeline.classes != len(class_names):
        raise BadInput(f"the model has {pipeline.classes} classes and {len(class_names)} names are given: give a name for each class.")

    def fill(folder: Path) -> str:
        pipeline.save_pretrained(folder, safe_serialization=True)
        return sha256_file(folder / WEIGHTS)[:16]

    final = publish_folder(models, fill)
    return ModelRecord(
        dataset=dataset,
        class_names=tuple(class_names),
        forgotten=tuple(name for name in class_names if name in forgotten),
        weights=Pointer(uri=final.name, sha256=sha256_file(final / WEIGHTS)),
        folder_sha256=sha256_folder(final),
    )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        BadInput: it is another kind of file, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError):
        raise BadInput(f"{path} is not a safetensors file: convert the weights to safetensors; pickles are never loaded.") from None


def build_checked(config: dict[str, Any], weights: dict[str, torch.Tensor], folder: Path) -> torch.nn.Module:
    """The denoiser of a config with its weights, in evaluation mode.

    Args:
        config: of a diffusers ``UNet2DModel``.
        weights: its tensors.
        folder: where they come from, for error sentences.

    Raises:
        BadInput: it is not a class-conditional ``UNet2DModel``, or the weights are not its own or not finite.
    """
    from diffusers import UNet2DModel

    if config.get("_class_name") != "UNet2DModel" or not config.get("num_class_embeds"):
        raise BadInput(f"the denoiser of {folder} is not a class-conditional UNet2DModel: hand in a model with class labels.")
    _check_size(config, folder)
    try:
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        unet: torch.nn.Module = UNet2DModel.from_config(config)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the config of {folder} does not describe a UNet2DModel ({error}): hand in the folder again.") from None
    _fill(unet, weights, folder)
    return unet.eval()


def _fill(unet: torch.nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise BadInput(
            f"the tensors of {folder} do not match its config ({odd[0]} and {len(odd) - 1} more differ): "
            "hand in a folder whose unet/config.json belongs to its weights."
        )
    if odd := sorted(name for name, value in weights.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())):
        raise BadInput(f"the tensor {odd[0]} of {folder} is not finite: hand in weights without NaN and infinity.")
    unet.load_state_dict(weights)


def _check_size(config: dict[str, Any], folder: Path) -> None:
    size = config.get("sample_size")
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise BadInput(
            f"unet/config.json of {folder} has sample_size {size!r}, so nothing says how large its images are: set it to their side in pixels."
        )
    if config.get("in_channels") != config.get("out_channels"):
        raise BadInput(
            f"the denoiser of {folder} takes and returns images of other channels: hand in one that predicts epsilon or v_prediction alone."
        )


def load_pipeline(folder: Path, expected_sha256: str | None = None) -> ClassConditionalPipeline:
    """Load a model folder after checking it.

    Args:
        folder: a ``ClassConditionalPipeline`` in diffusers layout.
        expected_sha256: what the digest of the weights must be, where it is known.

    Raises:
        BadInput: a file is missing, is a pickle, or the tensors do not match the config.
        IntegrityError: the weights are not the ones that were named.
    """
    check_layout(folder)
    weights = read_weights(folder / WEIGHTS)
    if expected_sha256 is not None:
        check_weights(folder, expected_sha256)
    unet = build_checked(read_json(folder / "unet/config.json"), weights, folder / "unet")
    return ClassConditionalPipeline(unet, read_scheduler(read_json(folder / "scheduler/scheduler_config.json"), str(folder)))


def load_recorded(folder: Path, record: ModelRecord) -> ClassConditionalPipeline:
    """Load a model folder that must be, to the last file, the one that a record describes.

    Raises:
        BadInput: see :func:`load_pipeline`.
        IntegrityError: the weights, a config or the scheduler are not the recorded ones.
    """
    pipeline = load_pipeline(folder, record.weights.sha256)
    check_rest(folder, record)
    return pipeline


def load_model(models: Path, record: ModelRecord) -> ClassConditionalPipeline:
    """Load the model that a record names from the folder of model folders; see :func:`load_recorded`."""
    return load_recorded(models / record.weights.uri, record)
