"""Classes have names: how a name is spelled, and the records that hold a model's classes in order."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from erasediff.environment import in_pod
from erasediff.errors import BadInput
from erasediff.files import sha256_bytes
from erasediff.records.base import Record, Sha256, canonical_json

MAX_NAME_LENGTH = 4096
_NO_BREAK = dict.fromkeys((0x00A0, 0x2007, 0x202F), " ")


def normal_name(text: str) -> str:
    """A name in Unicode's form NFC, with ordinary blanks for no-break spaces and no blanks around it."""
    return unicodedata.normalize("NFC", text).translate(_NO_BREAK).strip()


def _checked(value: object) -> str:
    if isinstance(value, int | float):
        raise ValueError(
            f"{value} is a number, and a class is told by its name: write the name as text, such as '3'; "
            "`erasediff migrate` rewrites what an earlier version wrote by positions"
        )
    if not isinstance(value, str):
        raise ValueError("a class is told by its name: write it as text")
    try:
        name = normal_name(value)
        name.encode()
    except UnicodeEncodeError:
        raise ValueError("the name of a class has to be Unicode text") from None
    if not name or len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"the name of a class has to have 1 to {MAX_NAME_LENGTH} characters")
    return name


ClassName = Annotated[str, BeforeValidator(_checked)]
"""The name of a class, normalised; a number is refused and never made into a name."""


def names_digest(class_names: Sequence[str]) -> Sha256:
    """The digest of a list of class names in their order."""
    return sha256_bytes(canonical_json(list(class_names)))


def shown_names(names: Sequence[str], most: int = 20) -> str:
    """The names of classes for a sentence or a terminal; if there are many, the first of them and how many more there are.

    They may name people, and the log of a pod is kept by others: there it is told only how many they are.
    """
    if in_pod():
        return f"({len(names)} name{'' if len(names) == 1 else 's'}, not shown in a pod)"
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


class ClassRecord(Record):
    """A record of something with classes: a model, or the graph that is served.

    ``class_names`` are in the model's order: the row of a class in its embedding is the position of its name. ``forgotten`` are some of them.
    """

    class_names: tuple[ClassName, ...] = Field(min_length=2)
    forgotten: tuple[ClassName, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _not_by_positions(cls, document: object) -> object:
        if isinstance(document, dict) and "classes" in document and "class_names" not in document:
            raise ValueError("it tells classes by positions, as an earlier version of erasediff did, and not by names: run `erasediff migrate`")
        return document

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("two classes have the same name")
        if not set(self.forgotten) <= set(self.class_names) or len(set(self.forgotten)) < len(self.forgotten):
            raise ValueError("'forgotten' names a class twice, or one that is not among 'class_names'")
        return self

    @property
    def classes(self) -> int:
        """How many classes there are; it is also the row of the null label."""
        return len(self.class_names)

    def row(self, name: str) -> int:
        """The row of a class.

        Raises:
            BadInput: no class has this name.
        """
        wanted = normal_name(name)
        if wanted not in self.class_names:
            raise BadInput(f"the model has no class {shown_names([wanted])}: choose one of {shown_names(self.class_names)}.")
        return self.class_names.index(wanted)

    @property
    def rows_forgotten(self) -> tuple[int, ...]:
        """The rows of the forgotten classes, ascending."""
        return tuple(sorted(map(self.class_names.index, self.forgotten)))
