"""Labelled images, loaded from the kinds of source that a config can name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasediff.data.readers.kinds import read
from erasediff.data.readers.names import is_whole_number
from erasediff.data.rows import Rows
from erasediff.errors import BadInput
from erasediff.records.config import DatasetConfig
from erasediff.records.names import ClassRecord, normal_name, shown_names


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

    def class_called(self, text: str) -> str:
        """The name of a class as the dataset spells it. A number is a name like any other, never a position.

        Raises:
            BadInput: there is no such class.
        """
        name = normal_name(text)
        if name not in self.class_names:
            raise BadInput(f"class {shown_names([name])} is not in dataset {self.name}: choose one of {shown_names(self.class_names)}.")
        return name

    def in_order_of(self, model: ClassRecord) -> ImageDataset:
        """The dataset with its classes in a model's order, so that a label is the row of its class.

        Classes that the model has forgotten may be missing: their pictures are deleted after an erasure.

        Raises:
            BadInput: it lacks another class of the model, or has one that the model has not.
        """
        if self.class_names == model.class_names:
            return self
        missing = [name for name in model.class_names if name not in self.class_names and name not in model.forgotten]
        foreign = [name for name in self.class_names if name not in model.class_names]
        parts = (("the dataset lacks", missing), ("the model lacks", foreign))
        if odd := " and ".join(f"{who} {shown_names(names)}" for who, names in parts if names):
            raise BadInput(f"the classes of dataset {self.name} are not those of the model ({odd}): name the dataset that the model was trained on.")
        rows = np.array([model.class_names.index(name) for name in self.class_names], dtype=np.int64)
        return replace(self, labels=rows[self.labels], class_names=model.class_names)


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


def dataset_of(config: DatasetConfig, model: ClassRecord) -> ImageDataset:
    """The dataset that ``config`` names, in the order of a model's classes; see :meth:`ImageDataset.in_order_of`."""
    return load_dataset(config).in_order_of(model)


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
