"""A hash that pictures share when they look alike, whatever their brightness, their compression or their size."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

BITS = 64
LEAST_SIDE = 24
"""Of pictures that can be told apart by it; smaller ones of different classes look alike too often."""
_SIDE = 8
_BATCH_VALUES = 400_000
_LUMA = (0.299, 0.587, 0.114)  # Pillow's mode L
_FLAT = 0.01
"""Grey levels: below, a coefficient is what rounding leaves."""


def perceptual_hashes(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The DCT hash of images, ``imagehash.phash``: which of the 8x8 lowest frequencies of the grey picture are above their median.

    The frequencies are taken of the picture as it is, while ``imagehash`` reduces it to 32x32 pixels first. For pictures of that size the bits are
    the same. Taken many at a time, for one at a time costs 30 times as much.

    Args:
        images: uint8 [N, H, W, 1 or 3], sides of :data:`LEAST_SIDE` or more.

    Returns:
        uint64 [N], and which pictures are of one grey only and have no hash.
    """
    count, height, width, channels = images.shape
    hashes, flat = np.empty(count, dtype=np.uint64), np.empty(count, dtype=np.bool_)
    size = max(1, _BATCH_VALUES // (height * width * channels))
    across, down = _across(width, channels), _frequencies(height)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        number = part.stop - start
        columns = down @ images[part].reshape(number, height, width * channels).astype(np.float32)
        found = (columns.reshape(number * _SIDE, width * channels) @ across).reshape(number, BITS)
        ordered = np.sort(found, axis=1)
        above = found > (ordered[:, BITS // 2 - 1, None] + ordered[:, BITS // 2, None]) / 2
        hashes[part] = np.packbits(above, axis=1).view(np.uint64)[:, 0]
        flat[part] = np.abs(found[:, 1:]).max(axis=1) < _FLAT
    return hashes, flat


def _across(width: int, channels: int) -> NDArray[np.float32]:
    """A row of pixels ``[width * channels]`` to its frequencies."""
    weights = np.array(_LUMA if channels == 3 else (1,), dtype=np.float32)
    return (_frequencies(width).T[:, None, :] * weights[None, :, None]).reshape(width * channels, _SIDE)


@cache
def _frequencies(side: int) -> NDArray[np.float32]:
    """The lowest frequencies ``[8, side]`` of the DCT-II, scaled so that a coefficient is in grey levels."""
    from scipy.fft import dct

    return np.asarray(dct(np.eye(side), axis=0)[:_SIDE] / (2 * side), dtype=np.float32)
