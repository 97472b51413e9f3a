"""Smaller images, by one filter: the mean of the area."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from erasediff.errors import BadInput


def reduce_images(images: NDArray[np.uint8], size: int, what: str) -> NDArray[np.uint8]:
    """Reduce square images to ``size`` by the mean of the area (box filter): exact where the sides divide, else PIL's.

    Args:
        images: uint8 [N, S, S, C].
        size: the new side, at most S.
        what: what has these images, for error sentences.

    Returns:
        uint8 [N, size, size, C].

    Raises:
        BadInput: the images are not square or are smaller than ``size``.
    """
    count, height, width, channels = images.shape
    if height != width:
        raise BadInput(f"{what} has {width}x{height} pixels, which do not reduce to {size}x{size}: crop all images to squares.")
    if size > height:
        raise BadInput(f"{what} has {width}x{height} pixels, smaller than size {size}: choose a size up to {height}, or leave smaller images out.")
    if size == height:
        return images
    reduced = np.empty((count, size, size, channels), dtype=np.uint8)
    shrink = _block_mean if height % size == 0 else _box_filter
    for index in range(count):
        reduced[index] = shrink(images[index], size)
    return reduced


def _block_mean(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    block = image.shape[0] // size
    mean: NDArray[np.float64] = image.reshape(size, block, size, block, -1).mean(axis=(1, 3), dtype=np.float64)
    return np.rint(mean).astype(np.uint8)


def _box_filter(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), dtype=np.uint8).reshape(size, size, -1)
