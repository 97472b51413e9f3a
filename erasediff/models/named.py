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
_ROW = re.compile(r"0|[1-9][0-9]{0,8}")


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
    """The names that a pipeline's config has, in the order of their rows; ``None`` if it has none.

    Raises:
        BadInput: they are not under the numbers from 0 on, each once: in another order than the model's they would name other classes.
    """
    named = config.get(NAMES)
    if not named:
        return None
    by_row = _by_row(named, whose)
    if list(by_row) != list(range(len(by_row))):
        raise _not_by_row(whose)
    return list(by_row.values())


def classes_called(told: Sequence[str] | int, config: Mapping[str, Any], whose: str) -> ClassRecord:
    """Classes by their names, with those that the config says were forgotten. Without names they are called by their rows."""
    names = [str(row) for row in range(told)] if isinstance(told, int) else list(told)
    forgotten = list(_by_row(config.get(FORGOTTEN) or {}, whose).values())
    return ClassRecord.parse({"class_names": names, "forgotten": forgotten}, f"the list of the classes of {whose}")


def classes_in(config: Mapping[str, Any], conditions: int, whose: str) -> ClassRecord:
    """The classes of a model with so many of them, by the names in its pipeline's config; see :func:`classes_called`.

    Raises:
        BadInput: the config has fewer or more names, or see :func:`names_in`.
    """
    found = classes_called(names_in(config, whose) or conditions, config, whose)
    if found.classes != conditions:
        raise BadInput(f"{whose} has {conditions} classes and {found.classes} names ({NAMES}): load it again with a name for each class.")
    return found


def _by_row(named: Any, whose: str) -> dict[int, str]:
    if not isinstance(named, Mapping) or not all(_ROW.fullmatch(str(row)) for row in named):  # JSON has made text of the rows
        raise _not_by_row(whose)
    return {int(row): named[row] for row in sorted(named, key=int)}


def _not_by_row(whose: str) -> BadInput:
    return BadInput(f"{whose} has names of classes that are not under the numbers of their rows ({NAMES}): give them in order to erasediff.load.")
