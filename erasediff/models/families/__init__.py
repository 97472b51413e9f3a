"""The families of models: a file each, and a line each in :data:`FAMILIES`."""

from __future__ import annotations

from pathlib import Path

from erasediff.models.families.dit import DiT
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.models.family import Model
from erasediff.models.layout import INDEX, check_layout, read_json

FAMILIES: dict[str, type[Model]] = {family.kind: family for family in (ClassConditionalUNet, DiT, StableDiffusion)}
"""By the ``_class_name`` that a folder's own ``model_index.json`` states."""


def load_folder(folder: Path) -> Model:
    """Load a model folder after checking its layout.

    Raises:
        BadInput: a file is missing or a pickle, the model is of no known family, or its parts are damaged or do not fit together.
    """
    check_layout(folder)
    return FAMILIES[read_json(folder / INDEX)["_class_name"]].load(folder)
