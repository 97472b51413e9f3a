"""What a caller in Python asks for: lists, whole numbers and names, as plain values, arrays or tensors."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.family import Model
from erasediff.records.config import SamplerConfig
from erasediff.records.names import ClassRecord

_SEEDS = 2**64
"""The seeds that torch tells apart; it takes negative numbers for others of them."""


def listed(given: object) -> list[Any] | None:
    """The values of a list, an array or a tensor; ``None`` for what has no order or is one value. A text is one value, and not its letters."""
    values = given.tolist() if isinstance(given, Tensor | np.ndarray) or hasattr(given, "tolist") else given
    return None if isinstance(values, str | bytes | Set | Mapping) or not isinstance(values, Iterable) else list(values)


def whole_number(value: object) -> int | None:
    """A whole number of any library as Python's; ``None`` for anything else, such as 3.0, '3' and True."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def listed_texts(given: object) -> list[str] | None:
    """The texts of a list; ``None`` if it is no list, or holds something else."""
    values = listed(given)
    return values if values is not None and all(isinstance(value, str) for value in values) else None


def asked_rows(labels: object, model: Model, classes: ClassRecord) -> Tensor:
    """Rows of a model, ``int64 [N]``, from rows or from names of classes.

    Raises:
        BadInput: they are no list of these, there are none, or the model has no such row or class.
    """
    values = listed(labels)
    if not values:
        raise BadInput("labels is no list of labels: give the row or the name of a class for each image, and one at least.")
    rows = [classes.row(value) if isinstance(value, str) else whole_number(value) for value in values]
    last = model.conditions - 1 if model.null_row is None else model.null_row
    known = [row for row in rows if row is not None and 0 <= row <= last]
    if len(known) < len(rows):
        no_class = "" if model.null_row is None else f", or {last} for no class"
        raise BadInput(f"a label is no row of the model: give whole numbers from 0 to {model.conditions - 1}{no_class}, or names of classes as text.")
    return torch.tensor(known, dtype=torch.int64)


def asked_seeds(seeds: object, images: int) -> list[int]:
    """One seed for each image.

    Raises:
        BadInput: they are no list of whole numbers that torch tells apart, or are more or fewer than the images.
    """
    numbers = [whole_number(value) for value in listed(seeds) or ()]
    found = [number for number in numbers if number is not None and 0 <= number < _SEEDS]
    if not found or len(found) < len(numbers):
        raise BadInput("seeds is no list of seeds: give a whole number from 0 to 2**64 - 1 for each image.")
    if len(found) != images:
        raise BadInput(f"there are {images} labels and {len(found)} seeds: give a seed for each label.")
    return found


def asked_sampler(steps: object, guidance_scale: object) -> SamplerConfig:
    """Steps and guidance within a configuration's limits.

    Raises:
        BadInput: they are not.
    """
    return SamplerConfig.parse({"steps": steps, "guidance_scale": guidance_scale}, "the call")
