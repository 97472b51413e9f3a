"""Which images of a dataset are one picture, pixel for pixel or nearly.

Nearly is: their perceptual hashes differ in at most :data:`DISTANCE` bits, and their pixels correlate by :data:`CORRELATION` at least. The hash finds
the candidates, the pixels tell those apart that only have one shape. Both numbers are measured, see ``docs/own-data.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erasediff.data.hamming import Words, pairs_within
from erasediff.data.perceptual import LEAST_SIDE, perceptual_hashes
from erasediff.data.rows import THREADS, Rows

DISTANCE = 4
CORRELATION = 0.99
_PAIR_BYTES = 8 << 20
_Positions = NDArray[np.int64]
_Alike = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Twins:
    """Positions ``at`` of images, each with that of a picture it is the same as, ``of``; ``exact`` says whether pixel for pixel."""

    at: _Positions
    of: _Positions
    exact: NDArray[np.bool_]

    def and_then(self, more: Twins) -> Twins:
        """These and more."""
        return Twins(np.append(self.at, more.at), np.append(self.of, more.of), np.append(self.exact, more.exact))


class Looks:
    """What the images of a dataset look like, in 17 bytes each; made in one pass over them.

    Args:
        images: uint8 [N, H, W, 1 or 3].
    """

    def __init__(self, images: Rows) -> None:
        """See the class."""
        count, height, width, _ = images.shape
        self.near = min(height, width) >= LEAST_SIDE
        self._images = images
        self._prints: Words = np.empty(count, dtype=np.uint64)
        self._hashes: Words = np.zeros(count, dtype=np.uint64)
        self._flat = np.ones(count, dtype=np.bool_)
        weights = np.random.default_rng().integers(0, 1 << 63, -(-images[:1].nbytes // 8), dtype=np.uint64) * np.uint64(2) + np.uint64(1)

        def look(part: slice) -> None:
            block = images[part]
            self._prints[part] = _prints(block, weights)
            if self.near:
                self._hashes[part], self._flat[part] = perceptual_hashes(block)

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(look, images.parts()):
                pass

    def twins(self, labels: NDArray[np.int64], asked: _Positions, known: _Positions) -> Twins:
        """Those of the images at ``asked`` that are the same as one at ``known`` under another label; with the first such that is found."""
        exact = self._exact(labels, asked, known)
        return exact.and_then(self._near(labels, np.setdiff1d(asked, exact.at), known)) if self.near else exact

    def _exact(self, labels: NDArray[np.int64], asked: _Positions, known: _Positions) -> Twins:
        ordered = known[np.lexsort((labels[known], self._prints[known]))]
        prints, wanted = self._prints[ordered], self._prints[asked]
        first, last = np.searchsorted(prints, wanted), np.searchsorted(prints, wanted, side="right") - 1
        asked, first, last = (values[first <= last] for values in (asked, first, last))
        # Of the labels with this print the first and the last are looked at: one of them is another, if there is another.
        of = ordered[np.where(labels[ordered[first]] != labels[asked], first, last)]
        other = labels[of] != labels[asked]
        same = self._compared(asked[other], of[other], _same)
        return Twins(asked[other][same], of[other][same], np.ones(same.sum(), np.bool_))

    def _near(self, labels: NDArray[np.int64], asked: _Positions, known: _Positions) -> Twins:
        asked, known = asked[~self._flat[asked]], known[~self._flat[known]]
        match = np.full(len(asked), -1)
        for one, other in pairs_within(self._hashes[asked], self._hashes[known], DISTANCE):
            open_ = (match[one] < 0) & (labels[asked[one]] != labels[known[other]])
            one, other = one[open_], other[open_]
            same = self._compared(asked[one], known[other], _correlate)
            match[one[same]] = known[other[same]]
        found = match >= 0
        return Twins(asked[found], match[found], np.zeros(found.sum(), np.bool_))

    def _compared(self, one: _Positions, other: _Positions, alike: _Alike) -> NDArray[np.bool_]:
        """Which pairs of images are alike; a few are in memory at a time."""
        size = max(1, _PAIR_BYTES // self._images[:1].nbytes)
        parts = [alike(self._images[one[at : at + size]], self._images[other[at : at + size]]) for at in range(0, len(one), size)]
        return np.concatenate(parts) if parts else np.empty(0, np.bool_)


def _prints(images: NDArray[np.uint8], weights: Words) -> Words:
    """A number for each image that two images hardly share unless they are the same; the weights are drawn anew for each dataset."""
    rows = images.reshape(len(images), -1)
    words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64) if rows.shape[1] % 8 else rows.view(np.uint64)
    mixed: Words = (words ^ (words >> np.uint64(32))) @ weights  # modulo 2^64; high bits alone would say little
    return mixed


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = (one == other).reshape(len(one), -1).all(axis=1)
    return equal


def _correlate(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    left, right = _centred(one), _centred(other)
    alike: NDArray[np.bool_] = (left * right).sum(axis=1) >= CORRELATION * np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return alike


def _centred(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    centred: NDArray[np.float32] = flat - flat.mean(axis=1, keepdims=True)
    return centred
