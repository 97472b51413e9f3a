"""Labelled images, loaded from the kinds of source that a config can name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasediff.data.readers.kinds import read
from erasediff.data.readers.names import is_whole_number, normal_name
from erasediff.data.rows import Rows
from erasediff.errors import BadInput
from erasediff.records.config import DatasetConfig


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images with one label each. Labels are made read-only and images are copied out of their file, so that the digest stays true.

    Attributes:
        name: what requests call the dataset.
        images: uint8 [N, H, W, C] with C 1 (grey) or 3 (RGB), in a file.
        labels: int64 [N], positions in ``class_names``.
        class_names: one name per class.
    """

    name: str
    images: Rows
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
        self.labels.setflags(write=False)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(f"{list(self.images.shape)}\n".encode())
        for block in self.images.blocks():
            digest.update(block.data)
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
        name = normal_name(name_or_number)
        if name in self.class_names:
            return self.class_names.index(name)
        # Where classes are named by numbers, a position could silently mean another class than the one requested.
        positions = [] if all(map(is_whole_number, self.class_names)) else [str(i) for i in range(self.classes)]
        if name in positions:
            return positions.index(name)
        choices = ", ".join(self.class_names)
        raise BadInput(f"class {name_or_number} is not in dataset {self.name}: choose one of {choices}.")


def load_dataset(config: DatasetConfig) -> ImageDataset:
    """Load the dataset that ``config`` names and reduce it to ``config.size`` if that is set.

    Returns:
        images uint8 [N, H, W, C] and labels int64 [N]; the same source always gives the same digest.

    Raises:
        BadInput: the source is missing, damaged, inconsistent or too large; the sentence says what to do.
    """
    raw = read(config.kind, _source(config), config.size)
    class_names, labels = encode_labels(raw.labels)
    return ImageDataset(config.name, raw.images, labels, class_names)


def encode_labels(names: list[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Number the classes: by value when every name is an integer, else alphabetically.

    Returns:
        the class names in order, and int64 [N] positions in them.
    """
    unique = sorted(set(names))
    if all(is_whole_number(name) for name in unique):
        unique.sort(key=int)
    position = {name: index for index, name in enumerate(unique)}
    return tuple(unique), np.fromiter((position[name] for name in names), dtype=np.int64, count=len(names))


def _source(config: DatasetConfig) -> Path:
    if config.path is None:
        return Path()
    folder = Path(config.path)
    if not folder.is_dir():
        raise BadInput(f"the dataset folder {folder} does not exist: check dataset.path.")
    return folder
