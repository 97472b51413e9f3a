"""The names of a model's classes, in the config of its diffusers pipeline and as a caller gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from erasediff.errors import BadInput
from erasediff.models.asked import listed_texts, whole_number
from erasediff.records.names import ClassRecord

NAMES, FORGOTTEN = "id2label", "_forgotten"
"""The fields of a pipeline's config: the name of every row, as diffusers has it, and of those that it has been made to forget."""


def told_classes(classes: object) -> list[str] | int:
    """The names of classes in order, or their number, as a caller gives them. Nothing is made of the number before a model is compared with it.

    Raises:
        BadInput: they are neither.
    """
    number, names = whole_number(classes), listed_texts(classes)
    if names is not None:
        return names
    if number is None or number < 2:
        raise BadInput("classes is neither a list of the names of classes nor their number, 2 or more: write classes=['cat', 'dog'], or classes=2.")
    return number


def names_in(config: Mapping[str, Any], whose: str) -> list[str] | None:
    """The names that a pipeline's config has, in the order of their rows; ``None`` if it has none."""
    return _by_row(config.get(NAMES), whose)


def classes_called(told: Sequence[str] | int, config: Mapping[str, Any], whose: str) -> ClassRecord:
    """Classes by their names, with those that the config says were forgotten. Without names they are called by their rows."""
    names = [str(row) for row in range(told)] if isinstance(told, int) else list(told)
    return ClassRecord.parse({"class_names": names, "forgotten": _by_row(config.get(FORGOTTEN), whose) or []}, f"the list of the classes of {whose}")


def _by_row(named: Any, whose: str) -> list[str] | None:
    if not named:
        return None
    if not isinstance(named, Mapping) or not all(re.fullmatch(r"[0-9]{1,9}", str(row)) for row in named):
        raise BadInput(f"{whose} has names of classes that are not under the numbers of their rows ({NAMES}): give them in order to erasediff.load.")
    return [named[row] for row in sorted(named, key=int)]  # JSON has made text of the rows
