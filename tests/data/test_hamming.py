"""The lie: 'none of them is alike', of words that an index has passed over."""

from __future__ import annotations

import numpy as np
import pytest

from erasediff.data import hamming
from erasediff.data.hamming import pairs_within


def found(asked: np.ndarray, known: np.ndarray, distance: int) -> list[tuple[int, int]]:
    return sorted((int(one), int(other)) for block in pairs_within(asked, known, distance) for one, other in zip(*block, strict=True))


def each_with_each(asked: np.ndarray, known: np.ndarray, distance: int) -> list[tuple[int, int]]:
    return [(int(one), int(other)) for one, other in np.argwhere(np.bitwise_count(asked[:, None] ^ known[None]) <= distance)]


def flipped(words: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """The words with so many of their bits changed."""
    places = np.array([rng.choice(64, bits, replace=False) for _ in words]).reshape(len(words), bits).astype(np.uint64)
    return words ^ (np.uint64(1) << places).sum(axis=1, dtype=np.uint64)


@pytest.mark.parametrize("pairs_at_once", [5, 1 << 20])
def test_every_pair_within_the_distance_is_found_once_and_no_other(pairs_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among words of which many have whole pieces in common; a control is that words one bit further away are there, and left out."""
    monkeypatch.setattr(hamming, "_PAIRS", pairs_at_once)
    rng = np.random.default_rng(0)
    known = rng.integers(0, 1 << 64, 300, dtype=np.uint64)
    known[100:200] &= np.uint64(0xFFF)
    known[200:] = known[:100]  # the same words again
    asked = np.concatenate([flipped(known[:200], bits, rng) for bits in (0, 1, 3, 4, 5)])
    expected = each_with_each(asked, known, 4)
    assert len(expected) > 1000
    assert found(asked, known, 4) == expected
    assert len(each_with_each(asked, known, 5)) > len(expected), "control"


def test_no_words_have_no_pairs() -> None:
    none, one = np.empty(0, np.uint64), np.zeros(1, np.uint64)
    assert found(none, one, 4) == found(one, none, 4) == []
    assert found(one, one, 4) == [(0, 0)], "control"
