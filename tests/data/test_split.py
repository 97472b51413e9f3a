"""The lie: 'the forget set is gone', while some of it was still in the set the model is kept good on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.data.split import Split, check_split, split_dataset
from erasediff.errors import BadInput, IntegrityError

NAMES = tuple("abcdefgh")


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    label=st.integers(0, 5),
    gone=st.sets(st.integers(0, 5), max_size=4),
)
def test_every_image_is_in_exactly_one_set(labels: list[int], label: int, gone: set[int]) -> None:
    """For any dataset: either a disjoint and complete split by the labels, or a sentence."""
    array = np.array(labels, dtype=np.int64)
    possible = label not in gone and label in labels and set(labels) - gone - {label}
    if not possible:
        with pytest.raises(BadInput):
            split_dataset(array, NAMES, label, gone)
        return
    split = split_dataset(array, NAMES, label, gone)
    check_split(split, len(labels))
    assert set(array[split.forget]) == {label}
    assert set(array[split.gone]) <= gone
    assert not set(array[split.retain]) & (gone | {label})
    assert len(split.forget) + len(split.retain) + len(split.gone) == len(labels)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    ("forget", "retain", "gone"),
    [
        (_ints(0, 1), _ints(1, 2, 3), _ints()),
        (_ints(0), _ints(2, 3), _ints()),
        (_ints(0, 1), _ints(2, 3), _ints(1)),
        (_ints(1, 0), _ints(2, 3), _ints()),
        (_ints(0, 1), _ints(2, 3, 4), _ints()),
        (_ints(0, 1), np.array([2.0, 3.0]), _ints()),
    ],
    ids=["overlap", "incomplete", "gone and forgotten", "unsorted", "too many", "floats"],
)
def test_check_split_refuses_a_wrong_split(forget: np.ndarray, retain: np.ndarray, gone: np.ndarray) -> None:
    """A split that leaks is not taken for one that does not."""
    with pytest.raises(IntegrityError):
        check_split(Split(forget, retain, gone), 4)


def test_control_check_split_accepts_a_right_one() -> None:
    """The check above does not refuse everything."""
    check_split(Split(_ints(0, 1), _ints(3), _ints(2)), 4)


@pytest.mark.parametrize(
    ("label", "gone", "words"),
    [(7, (), "no image of class h"), (1, (1,), "class b is already forgotten"), (1, (0, 2), "nothing would be retained, .* any class but a, b, c:")],
)
def test_impossible_requests_get_a_sentence(label: int, gone: tuple[int, ...], words: str) -> None:
    """An empty erasure is not certified, and a model is not emptied."""
    with pytest.raises(BadInput, match=words):
        split_dataset(_ints(0, 1, 2, 1), NAMES, label, gone)


def test_a_gone_label_is_in_neither_set() -> None:
    """The second erasure does not train on what the first one forgot."""
    split = split_dataset(_ints(0, 1, 2, 1, 0), NAMES, 0, (1,))
    assert split.forget.tolist() == [0, 4]
    assert split.retain.tolist() == [2]
    assert split.gone.tolist() == [1, 3]
