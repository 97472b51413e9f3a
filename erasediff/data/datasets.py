"""Labelled images in memory, loaded from the four kinds of source that a config can name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasediff.data.readers import Raw, read_folder, read_idx, read_shards
from erasediff.errors import BadInput
from erasediff.records.config import DatasetConfig


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images with one label each. The arrays are made read-only, so that the digest stays true.

    Attributes:
        name: what requests call the dataset.
        images: uint8 [N, H, W, C] with C 1 (grey) or 3 (RGB).
        labels: int64 [N], positions in ``class_names``.
        class_names: one name per class.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check what the readers do not.

        Raises:
            BadInput: no images, or fewer than two classes.
        """
        if not len(self.labels):
            raise BadInput(f"dataset {self.name} holds no images: add some.")
        if len(self.class_names) < 2:
            raise BadInput(f"dataset {self.name} has fewer than 2 classes, so nothing would be retained: add images of another class.")
        self.images.setflags(write=False)
        self.labels.setflags(write=False)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(f"{list(self.images.shape)}\n".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        for name in self.class_names:
            digest.update(f"{len(name.encode())}:".encode() + name.encode())
        return digest.hexdigest()

    def digest(self) -> str:
        """Hex SHA-256 over the shape, the images, the labels and the class names; computed once."""
        return self._sha256

    def label_index(self, name_or_number: str) -> int:
        """The label of a class given by its name, or by its position when no class is named by a number.

        Raises:
            BadInput: there is no such class.
        """
        if name_or_number in self.class_names:
            return self.class_names.index(name_or_number)
        # Where classes are named by numbers, a position could silently mean another class than the one requested.
        positions = [] if all(_is_integer(name) for name in self.class_names) else [str(i) for i in range(self.classes)]
        if name_or_number in positions:
            return positions.index(name_or_number)
        choices = ", ".join(self.class_names)
        raise BadInput(f"class {name_or_number} is not in dataset {self.name}: choose one of {choices}.")


def load_dataset(config: DatasetConfig) -> ImageDataset:
    """Load the dataset that ``config`` names and reduce it to ``config.size`` if that is set.

    Returns:
        images uint8 [N, H, W, C] and labels int64 [N]; the same source always gives the same digest.

    Raises:
        BadInput: the source is missing, damaged, inconsistent or too large; the sentence says what to do.
    """
    raw = _READERS[config.kind](_source(config))
    class_names, labels = encode_labels(raw.labels)
    images = raw.images if config.size is None else reduce_images(raw.images, config.size, config.name)
    return ImageDataset(config.name, images, labels, class_names)


def encode_labels(names: list[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Number the classes: by value when every name is an integer, else alphabetically.

    Returns:
        the class names in order, and int64 [N] positions in them.
    """
    unique = sorted(set(names))
    if all(_is_integer(name) for name in unique):
        unique.sort(key=int)
    position = {name: index for index, name in enumerate(unique)}
    return tuple(unique), np.fromiter((position[name] for name in names), dtype=np.int64, count=len(names))


def reduce_images(images: NDArray[np.uint8], size: int, name: str) -> NDArray[np.uint8]:
    """Reduce square images to ``size`` by area: an exact mean where the sides divide, else PIL's box filter.

    Args:
        images: uint8 [N, S, S, C].
        size: the new side, at most S.
        name: the dataset's name, for error sentences.

    Returns:
        uint8 [N, size, size, C].

    Raises:
        BadInput: the images are not square or are smaller than ``size``.
    """
    count, height, width, channels = images.shape
    if height != width:
        raise BadInput(f"dataset {name} has images of {width}x{height}, which do not reduce to {size}x{size}: make them square.")
    if size > height:
        raise BadInput(f"dataset {name} has images of {width}x{height}, smaller than size {size}: choose a size up to {height}.")
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


def _is_integer(name: str) -> bool:
    return name.isascii() and name.removeprefix("-").isdigit()


def _source(config: DatasetConfig) -> Path:
    if config.path is None:
        return Path()
    folder = Path(config.path)
    if not folder.is_dir():
        raise BadInput(f"the dataset folder {folder} does not exist: check dataset.path.")
    return folder


def _read_digits(_: Path) -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # floor(x + 1/2) rounds halves up; the ink levels run from 0 to 16.
    images = np.floor(np.asarray(bunch.images, dtype=np.float64) * 255 / 16 + 0.5).astype(np.uint8)
    return Raw(images[..., np.newaxis], [str(label) for label in bunch.target])


_READERS: dict[str, Callable[[Path], Raw]] = {
    "digits": _read_digits,
    "folder": read_folder,
    "shards": read_shards,
    "idx": read_idx,
}
