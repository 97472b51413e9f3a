"""A class-conditional model with the names of its classes, as the diffusers pipeline of its family, and back.

The names lie in the pipeline's own config, under diffusers' name for them, so ``save_pretrained`` writes them into ``model_index.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from erasediff.errors import BadInput
from erasediff.models.autoencoder import Autoencoder
from erasediff.models.bring import bring
from erasediff.models.families import FAMILIES, load_folder
from erasediff.models.families.dit import DiT, without_label_dropout
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.models.layout import INDEX, check_there, read_json
from erasediff.models.named import FORGOTTEN, NAMES, classes_called, classes_in, names_in, told_classes
from erasediff.records.names import ClassRecord

Classes = ClassConditionalUNet | DiT
_OF_CLASSES = (ClassConditionalUNet.kind, DiT.kind)


def open_pipeline(folder: Path, classes: object) -> Any:
    """The model of a folder as a pipeline; see :func:`erasediff.python.load`."""
    check_there(folder)
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    told = names_in(index, str(folder)) if classes is None else told_classes(classes)
    if told is not None:
        model = bring(folder, told if isinstance(told, int) else len(told)).model
    elif index.get("_class_name") in _OF_CLASSES:
        model = load_folder(folder)
        told = model.conditions
    elif index.get("_class_name") in tuple(FAMILIES):  # it may be anything
        raise BadInput(f"{folder} is a {index['_class_name']}, which is asked by prompts and not by classes: use `erasediff erase-concept`.")
    else:
        raise BadInput(
            f"{folder} does not say how many classes its model has: give load() their names in order as classes=[...], or their number; "
            "a model with one embedding more has been trained to make any class with it."
        )
    return pipeline_of(model, classes_called(told, index, str(folder)))


def classes_named(folder: Path, conditions: int) -> ClassRecord | None:
    """The classes that the ``model_index.json`` of a folder names, in the model's order; ``None`` if it names none, or two alike.

    Raises:
        BadInput: it names them otherwise than diffusers does, or not each of them.
    """
    index = read_json(folder / INDEX)
    names = names_in(index, str(folder)) or []
    return classes_in(index, conditions, str(folder)) if len(set(map(str, names))) == len(names) > 0 else None


def pipeline_of(model: Any, classes: ClassRecord) -> Any:
    """A model as the diffusers pipeline of its family, with the names of its classes."""
    pipeline = model.pipeline()
    pipeline.register_to_config(**{NAMES: dict(enumerate(classes.class_names)), FORGOTTEN: {classes.row(name): name for name in classes.forgotten}})
    return pipeline


def model_of(pipeline: Any) -> tuple[Classes, ClassRecord]:
    """The model in a pipeline, which shares its weights, and the names of its classes.

    Raises:
        BadInput: it is not the pipeline of a class-conditional model, or not in float32.
    """
    kind = type(pipeline).__name__
    model: Classes
    if kind == ClassConditionalUNet.kind:
        model = ClassConditionalUNet.of(pipeline.unet, pipeline.scheduler, pipeline.config.get("null_label", True) is not False)
    elif kind == DiT.kind:
        model = DiT.of(without_label_dropout(pipeline.transformer), pipeline.scheduler, Autoencoder(pipeline.vae))
    else:
        raise BadInput(f"a {kind} is not the pipeline of a class-conditional model: give what erasediff.load returns, or a {DiT.kind}.")
    if any(weight.dtype != torch.float32 for weight in model.network.parameters()):
        raise BadInput("the model is not in float32, and would be erased with too little precision: load it in float32, or convert it by .to().")
    return model, classes_in(pipeline.config, model.conditions, "the model")
