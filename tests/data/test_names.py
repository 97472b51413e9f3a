"""The lie: 'this class is forgotten', of a class that has a second spelling, in which it is retained."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from erasediff.data.datasets import load_dataset
from erasediff.data.readers.kinds import read
from erasediff.data.readers.names import common_spelling, normal_name, shown
from erasediff.errors import BadInput
from erasediff.records.config import DatasetConfig
from tests.data.written import WRITERS

_OTHER = "a class of its own"
_BLANKS = " \u00a0\u2007\u202f\u2003\u3000"
_INVISIBLE = "\u200b\u00ad\u2060\ufeff\ufe0f\U000e0101\u180b\u034f\u3164\uffa0\u17b4"


def _fits_a_folder(name: str) -> bool:
    return not name.startswith(".") and len(name.encode()) < 200


names = (
    st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=12)
    | st.sampled_from(["Zo\u00eb", "Andre\u0301", "\u1e9b\u0323", "\u212b", "7", "-3", "Ana Mar\u00eda", "\u110c\u1161\u11bc"])
).filter(lambda name: common_spelling(name) not in ("", common_spelling(_OTHER)) and _fits_a_folder(name))


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """Two spellings of one name, by what keyboards, file systems and spreadsheets do to names."""
    name = draw(names)
    other = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), name)
    other = other.replace(" ", draw(st.sampled_from(_BLANKS))) if draw(st.booleans()) else other
    other = draw(st.text(_BLANKS, max_size=2)) + other + draw(st.text(_BLANKS + _INVISIBLE, max_size=2))
    assume(_fits_a_folder(other))
    return name, other


def _classes(written_as: str, labels: list[str]) -> set[str]:
    kind, write = WRITERS[written_as]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), labels)
        return set(read(kind, Path(folder)).labels)


@given(pair=spellings())
def test_two_spellings_of_a_name_are_one_class_or_refused_in_every_reader(pair: tuple[str, str]) -> None:
    """No reader makes two classes of one name; a refusal shows both spellings, in ASCII."""
    first, second = pair
    assert common_spelling(first) == common_spelling(second)
    for written_as in WRITERS:
        if first == second:
            assert _classes(written_as, [first, second, _OTHER]) == {normal_name(first), _OTHER}, written_as
            continue
        with pytest.raises(BadInput, match="spells one name in two ways") as refused:
            _classes(written_as, [first, second, _OTHER])
        assert ascii(first) in str(refused.value), written_as
        assert ascii(second) in str(refused.value), written_as
        assert str(refused.value).isascii()


@given(pair=spellings())
def test_a_class_has_the_same_name_in_every_reader(pair: tuple[str, str]) -> None:
    """The format in which the images came does not decide what the class is called, and a request may spell it in any of these ways."""
    found = {written_as: _classes(written_as, [pair[1], _OTHER]) for written_as in WRITERS}
    assert found == {written_as: {normal_name(pair[1]), _OTHER} for written_as in WRITERS}


@given(text=st.text())
def test_a_normal_name_stays_as_it_is(text: str) -> None:
    """Reading what was written from a dataset that was read gives the same names."""
    name = normal_name(text)
    assert normal_name(name) == name
    assert common_spelling(name) == common_spelling(text)


@pytest.mark.parametrize(
    ("first", "second"),
    [("7", "07"), ("a b", "a  b"), ("jane", "ja\u200bne"), ("e\u200d\u0301", "\u00e9"), ("\u2764", "\u2764\ufe0f"), ("0", "-0")],
)
def test_names_that_look_alike_are_not_two_classes(first: str, second: str) -> None:
    """Blanks inside, invisible letters and zeros before a number do not make another name."""
    for written_as in WRITERS:
        with pytest.raises(BadInput, match="two ways"):
            _classes(written_as, [first, second, _OTHER])


@pytest.mark.parametrize("labels", [["a", "A"], ["m2", "m\u00b2"], ["7", "7.0"], ["1", "\u0661"], ["ab", "a b"]])
def test_control_other_names_are_other_classes(labels: list[str]) -> None:
    """The refusal is about spellings: capitals, signs and other digits are names of their own."""
    for written_as in WRITERS:
        assert _classes(written_as, labels) == set(labels), written_as


@pytest.mark.parametrize("label", [" ", "\u00a0", "\u200b", ""])
def test_a_blank_label_is_no_class(label: str) -> None:
    """A class without a name could not be asked for."""
    for written_as in WRITERS:
        if written_as == "class folders" and not label:
            continue  # no folder has this name
        with pytest.raises(BadInput, match=r"blank label|not a file and a label"):
            _classes(written_as, [label, _OTHER])


def test_names_that_are_no_text_or_too_long_are_refused(tmp_path: Path) -> None:
    """What could not be written into a record is refused with a sentence, not found later."""
    with pytest.raises(BadInput, match=r"no Unicode text, '\\udcff'"):
        _classes("class folders", ["\udcff", _OTHER])
    with pytest.raises(BadInput, match="4097"):
        _classes("parquet, names", ["x" * 4097, _OTHER])
    with pytest.raises(BadInput, match="up to 4096 characters"):
        _classes("npz", ["x" * 4097, _OTHER])


def test_a_request_may_spell_a_class_otherwise(tmp_path: Path) -> None:
    """A name that was typed on another keyboard finds its class."""
    kind, write = WRITERS["npz"]
    write(tmp_path, ["Zoe\u0308", _OTHER])
    dataset = load_dataset(DatasetConfig(name="x", kind=kind, path=str(tmp_path)))
    assert dataset.class_names == ("Zo\u00eb", _OTHER)
    assert {dataset.class_called(spelled) for spelled in ("Zo\u00eb", "Zoe\u0308", "\u00a0Zo\u00eb ")} == {"Zo\u00eb"}


def test_a_sentence_shows_file_names_on_one_line_of_ascii() -> None:
    """A name from outside cannot write lines of its own into a log, nor look like another name."""
    assert shown("a b.png") == "a b.png"
    assert shown("a\nb.png") == r"'a\nb.png'"
    assert shown("Zo\u00eb.png") == r"'Zo\xeb.png'"
