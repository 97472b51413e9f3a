"""The kinds of dataset that a configuration can name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from erasediff.data.readers.batches import Batch, Numbered, Raw, collect
from erasediff.data.readers.folders import read_class_folders, read_labelled_folder
from erasediff.data.readers.idx import read_idx
from erasediff.data.readers.shards import read_shards


def read(kind: str, folder: Path, size: int | None = None) -> Raw:
    """Read a dataset.

    Args:
        kind: one of :data:`READERS`.
        folder: where it lies; any, for a kind that takes none.
        size: the side to reduce the images to, if any.

    Raises:
        BadInput: it is damaged, inconsistent or too large; the sentence says what to do.
    """
    return collect(READERS[kind](folder, size), folder, size)


def _read_digits(_: Path, __: int | None) -> Iterator[Batch]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # floor(x + 1/2) rounds halves up; the ink levels run from 0 to 16.
    images = np.floor(np.asarray(bunch.images, dtype=np.float64) * 255 / 16 + 0.5).astype(np.uint8)
    yield Batch(images[..., np.newaxis], [str(label) for label in bunch.target], Numbered("image", 0, "digits"))


READERS: dict[str, Callable[[Path, int | None], Iterator[Batch]]] = {
    "digits": _read_digits,
    "folder": read_labelled_folder,
    "imagefolder": read_class_folders,
    "shards": read_shards,
    "idx": read_idx,
}
"""Each takes a folder, and the size to which the images will be reduced, and gives batches in the order of the source."""
