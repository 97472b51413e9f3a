"""Model folders: diffusers layout, safetensors only, digests checked on load, nothing unpickled."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from erasediff.errors import BadInput
from erasediff.files import publish_folder, sha256_file, sha256_folder
from erasediff.models.families import load_folder
from erasediff.models.family import Model
from erasediff.models.layout import PART_WEIGHTS, check_layout, check_rest, check_weights, network_folder
from erasediff.records.base import Pointer
from erasediff.records.core import ModelRecord


def save_model(model: Model, models: Path, dataset: str, class_names: Sequence[str], forgotten: Collection[str]) -> ModelRecord:
    """Save a model under ``models/<digest of its weights>`` and describe it.

    Args:
        model: its weights are saved as float32 safetensors, with the scheduler that serves.
        models: the folder of model folders.
        dataset: the name of the dataset it was trained on.
        class_names: the names of its classes, in the order of its embedding.
        forgotten: classes that it has been made to forget.

    Raises:
        BadInput: it has not as many classes as there are names.
    """
    if model.conditions != len(class_names):
        raise BadInput(f"the model has {model.conditions} classes and {len(class_names)} names are given: give a name for each class.")

    def fill(folder: Path) -> str:
        model.save(folder)
        return sha256_file(network_folder(folder) / PART_WEIGHTS)[:16]

    final = publish_folder(models, fill)
    return ModelRecord(
        dataset=dataset,
        class_names=tuple(class_names),
        forgotten=tuple(name for name in class_names if name in forgotten),
        weights=Pointer(uri=final.name, sha256=sha256_file(network_folder(final) / PART_WEIGHTS)),
        folder_sha256=sha256_folder(final),
    )


def load_named(folder: Path, expected_sha256: str) -> Model:
    """Load a model folder whose weights have a known digest.

    Raises:
        BadInput: see :func:`erasediff.models.families.load_folder`.
        IntegrityError: the weights are not the ones that were named.
    """
    check_layout(folder)
    check_weights(folder, expected_sha256)
    return load_folder(folder)


def load_recorded(folder: Path, record: ModelRecord) -> Model:
    """Load a model folder that must be, to the last file, the one that a record describes.

    Raises:
        BadInput: see :func:`erasediff.models.families.load_folder`.
        IntegrityError: the weights, a config or the scheduler are not the recorded ones.
    """
    model = load_named(folder, record.weights.sha256)
    check_rest(folder, record)
    return model


def load_model(models: Path, record: ModelRecord) -> Model:
    """Load the model that a record names from the folder of model folders; see :func:`load_recorded`."""
    return load_recorded(models / record.weights.uri, record)
