"""Images and labels in batches of bounded size, and a whole dataset of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from erasediff.data.readers.limits import batch_of, check_bytes, largest_side
from erasediff.data.readers.names import Spellings
from erasediff.data.readers.pictures import decode_picture, describe
from erasediff.data.readers.reduction import reduce_images
from erasediff.data.rows import Rows, Writer
from erasediff.errors import BadInput


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of one size, in the order of their source.

    Attributes:
        images: uint8 [n, H, W, 1 or 3].
        labels: n labels as the source spells them.
        where: what the image at a position is called in a sentence, such as ``row 3 of a.parquet``.
        left: how many more images the source says that it has, so that too many are refused at once; 0 where it does not say.
    """

    images: NDArray[np.uint8]
    labels: list[str]
    where: Callable[[int], str]
    left: int = 0


@dataclass(frozen=True)
class Numbered:
    """Names for the images of a batch that are known by their number in a file."""

    kind: str
    start: int
    file: str

    def __call__(self, at: int) -> str:
        """The name of the image at a position of the batch."""
        return f"{self.kind} {self.start + at} of {self.file}"


class Picture(NamedTuple):
    """An encoded picture, its label as the source spells it, and what a sentence calls it."""

    data: bytes
    label: str
    where: str


@dataclass(frozen=True, eq=False)
class Raw:
    """A dataset as it was read: images uint8 [N, H, W, C], in a file, and the names of their N classes."""

    images: Rows
    labels: list[str]


def decoded(pictures: Iterable[Picture], source: Path, size: int | None, count: int = 0) -> Iterator[Batch]:
    """Decode pictures, each reduced to ``size`` if that is set, into batches of one shape each.

    Args:
        pictures: in order; each is let go once it is decoded.
        source: the dataset's folder, for error sentences.
        size: the side to reduce them to, if any.
        count: how many there are, or 0 if that is not known: a dataset that is too large is then refused later than at its first picture.
    """
    filling: _Filling | None = None
    place = str(source)
    for seen, picture in enumerate(pictures):
        image = decode_picture(picture.data, f"{picture.where} in {place}", size)
        if filling is None:
            check_bytes(count * image.size, source)
        if filling is None or filling.full or filling.shape != image.shape:
            if filling is not None:
                yield filling.batch(count - seen)
            filling = _Filling(image.shape)
        filling.add(image, picture)
    if filling is not None:
        yield filling.batch(0)


class _Filling:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._images = np.empty((batch_of(math.prod(shape)), *shape), dtype=np.uint8)
        self._labels: list[str] = []
        self._where: list[str] = []

    @property
    def full(self) -> bool:
        return len(self._labels) == len(self._images)

    def add(self, image: NDArray[np.uint8], picture: Picture) -> None:
        self._images[len(self._labels)] = image
        self._labels.append(picture.label)
        self._where.append(picture.where)

    def batch(self, left: int) -> Batch:
        return Batch(self._images[: len(self._labels)], self._labels, self._where.__getitem__, max(0, left))


def check_array(shape: tuple[int, ...], labels: int, what: str, size: int | None) -> None:
    """Check the shape [N, H, W, ...] of an array of images against the number of its labels.

    Raises:
        BadInput: other numbers, or sides that are out of bounds.
    """
    if shape[0] != labels:
        raise BadInput(f"{what} has {shape[0]} images but {labels} labels: give one label per image.")
    largest = largest_side(size)
    if max(shape[1:3]) > largest or min(shape[1:3]) < 1:
        raise BadInput(f"{what} has images of {shape[2]}x{shape[1]} pixels: sides go from 1 to {largest}, so resize them.")


def collect(batches: Iterator[Batch], source: Path, size: int | None) -> Raw:
    """Put batches together, each name in one spelling and each image reduced to ``size`` if that is set.

    Raises:
        BadInput: an image has another size or mode than the first, a label cannot be used, or there are too many pixels.
    """
    stack, spellings, labels = _Stack(source), Spellings(source), list[str]()
    for batch in batches:
        images = batch.images if size is None else reduce_images(batch.images, size, f"{batch.where(0)} in {source}")
        labels += spellings.names(batch.labels, batch.where)
        stack.add(images, batch.where, batch.left)
    return Raw(stack.images(), labels)


class _Stack:
    """Images of one shape, written to a file as they come."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._written = Writer()
        self._first: tuple[str, tuple[int, ...]] | None = None
        self._count = 0

    def add(self, images: NDArray[np.uint8], where: Callable[[int], str], left: int) -> None:
        check_bytes((self._count + len(images) + left) * images[0].size, self._source)
        first, shape = self._first = self._first or (where(0), images.shape[1:])
        if images.shape[1:] != shape:
            raise BadInput(
                f"{where(0)} in {self._source} is {describe(images.shape[1:])} but {first} is {describe(shape)}: "
                "give all images one mode and one size, or set dataset.size."
            )
        self._written.append(images)
        self._count += len(images)

    def images(self) -> Rows:
        if self._first is None:
            self._written.append(np.empty((0, 0, 0, 1), dtype=np.uint8))
        return Rows(self._written)
