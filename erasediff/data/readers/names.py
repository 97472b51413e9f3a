"""One spelling for one name, alike in every reader."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

from erasediff.errors import BadInput
from erasediff.records.names import MAX_NAME_LENGTH, normal_name

_IGNORABLE = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)),
)
"""Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt) beside the category Cf: selectors of variants and letters that only fill."""
_BLANK_BRAILLE = "\u2800"


def is_whole_number(name: str) -> bool:
    """Whether a name is a whole number in ASCII digits."""
    return name.isascii() and name.removeprefix("-").isdigit()


def common_spelling(text: str) -> str:
    """The same text for all spellings of one name: they differ in their Unicode form, in blanks, in invisible characters or in zeros before a number.

    Letters keep their case: A and a are two classes of a set of letters.
    """
    name = normal_name(text)
    if is_whole_number(name):
        return str(int(name))
    if name.isascii():
        return " ".join(name.split())
    visible = "".join(letter for letter in name.replace(_BLANK_BRAILLE, " ") if not _is_ignorable(letter))
    return " ".join(unicodedata.normalize("NFC", visible).split())


def _is_ignorable(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf" or any(first <= ord(letter) <= last for first, last in _IGNORABLE)


def shown(text: str) -> str:
    """A name of a file as an error may quote it: in ASCII, on one line."""
    return text if text.isascii() and text.isprintable() else ascii(text)


def no_file(name: str) -> BadInput:
    """The sentence for an entry of a dataset that has a file's name and is none; ``name`` is its path in the dataset."""
    return BadInput(f"{shown(name)} of the dataset is no file, or a link to none: fetch what it stands for, or remove it.")


class LabelKinds:
    """Whether the shards of a dataset tell their classes by names or by numbers: a number of one need not be the class of that name in another."""

    def __init__(self) -> None:
        """No shard was seen."""
        self._first: dict[str, Path] = {}

    def check(self, shard: Path, numbers: bool) -> None:
        """Hold a shard against the ones before it.

        Raises:
            BadInput: an earlier one tells its classes in the other way.
        """
        own, other = ("numbers", "names") if numbers else ("names", "numbers")
        self._first.setdefault(own, shard)
        if other in self._first:
            raise BadInput(f"{shard} tells its classes by {own} and {self._first[other]} by {other}: write the labels of all shards in one way.")


class Spellings:
    """The names that a dataset spells its classes with, each in one way."""

    def __init__(self, source: Path) -> None:
        """``source`` is the dataset's folder, for error sentences."""
        self._source = source
        self._names: dict[str, str] = {}
        self._spelled: dict[str, str] = {}

    def names(self, labels: list[str], where: Callable[[int], str]) -> list[str]:
        """The classes that labels name; ``where`` says what the image at a position is called.

        Raises:
            BadInput: a label is blank, too long or no Unicode text, or another label spells the same name otherwise.
        """
        for text in dict.fromkeys(labels):
            if text not in self._names:
                self._names[text] = self._new(text, labels.index(text), where)
        return [self._names[text] for text in labels]

    def _new(self, text: str, at: int, where: Callable[[int], str]) -> str:
        if len(text) > MAX_NAME_LENGTH:
            raise BadInput(f"{where(at)} in {self._source} has a label of {len(text)} characters: give names of up to {MAX_NAME_LENGTH}.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadInput(f"{where(at)} in {self._source} has a label that is no Unicode text, {text!a}: name the class in Unicode.") from None
        common = common_spelling(text)
        if not common:
            raise BadInput(f"{where(at)} in {self._source} has a blank label: name its class or remove it.")
        first = self._spelled.setdefault(common, text)
        if first != text:
            raise BadInput(f"the dataset {self._source} spells one name in two ways, {first!a} and {text!a}: write it in one way.")
        return normal_name(text)
