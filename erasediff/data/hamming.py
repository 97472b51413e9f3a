"""Which of many words of 64 bits differ in a few bits, without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_WIDTH = 64
_PAIRS = 1 << 20
_SLOT_BITS = 24
_ODD = np.uint64(0x9E3779B97F4A7C15)


def pairs_within(asked: Words, known: Words, distance: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of an asked and a known word that differ in at most ``distance`` bits, each once, in blocks of positions in ``asked`` and ``known``.

    Cut into ``distance + 2`` pieces, two such words have at least two pieces in common: only words that share two pieces are compared.
    """
    edges = np.linspace(0, _WIDTH, distance + 3).astype(int).tolist()
    pieces = [np.uint64((1 << end) - (1 << start)) for start, end in pairwise(edges)]
    for first, second in combinations(range(len(pieces)), 2):
        earlier = [piece for number, piece in enumerate(pieces[:second]) if number != first]
        for one, other in _sharing(asked, known, pieces[first] | pieces[second]):
            differing = asked[one] ^ known[other]
            keep = np.bitwise_count(differing) <= distance
            for piece in earlier:  # a pair that shares these too was found by them
                keep &= (differing & piece) != 0
            if keep.any():
                yield one[keep], other[keep]


def _sharing(asked: Words, known: Words, mask: np.uint64) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of words that are the same under a mask, in blocks."""
    order = np.argsort(known & mask, kind="stable")
    keys = known[order] & mask
    # Searching the keys costs more than a look into a table that says of most words that they are not there.
    present = np.zeros(1 << _SLOT_BITS, dtype=np.bool_)
    present[_slot(keys)] = True
    maybe = np.flatnonzero(present[_slot(asked & mask)])
    wanted = asked[maybe] & mask
    starts = np.searchsorted(keys, wanted)
    counts = np.searchsorted(keys, wanted, side="right") - starts
    found = np.flatnonzero(counts)
    maybe, starts, counts = maybe[found], starts[found], counts[found]
    ends = np.cumsum(counts)
    at = 0
    while at < len(maybe):
        upto = max(at + 1, int(np.searchsorted(ends, _PAIRS + (ends[at - 1] if at else 0), side="right")))
        part = slice(at, upto)
        offsets = np.arange(counts[part].sum()) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        yield np.repeat(maybe[part], counts[part]), order[np.repeat(starts[part], counts[part]) + offsets]
        at = upto


def _slot(words: Words) -> Words:
    return (words * _ODD) >> np.uint64(_WIDTH - _SLOT_BITS)
