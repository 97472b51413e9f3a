"""Tables of features in a file, written batch by batch and read in parts, so that memory does not grow with the number of images.

The file has no name from its first moment on: a process that is killed leaves nothing behind. It lies where ``TMPDIR`` says.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.evaluate.features.extractor import FeatureExtractor
from erasediff.evaluate.statistics import Features
from erasediff.evaluate.statistics.tables import Picked
from erasediff.files import explain_disk_errors

BLOCK = 1000
"""Images that are in memory at once."""
_STRETCH = 512  # rows that are read at once


class Writer:
    """Rows of one shape and type, appended to a file without a name."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="erasediff-")  # noqa: SIM115 - it lives as long as what is mapped from it
        self._row: tuple[int, ...] | None = None
        self._type: np.dtype[Any] = np.dtype(np.uint8)
        self._count = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Write some rows.

        Raises:
            BadInput: the disk is full.
        """
        if self._row is None:
            self._row, self._type = rows.shape[1:], rows.dtype
        if (rows.shape[1:], rows.dtype) != (self._row, self._type):
            raise ValueError(f"rows of {rows.dtype} {rows.shape[1:]} do not go with those of {self._type} {self._row}")
        with explain_disk_errors(Path(tempfile.gettempdir())):
            self._file.write(np.ascontiguousarray(rows).data)
            self._file.flush()
        self._count += len(rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, …)``."""
        if self._row is None:
            raise ValueError("nothing was written")
        return self._count, *self._row

    def read(self, first: int, count: int) -> NDArray[Any]:
        """``count`` rows from the ``first`` on, in memory."""
        rows = np.empty((count, *self.shape[1:]), self._type)
        size = os.preadv(self._file.fileno(), [rows.data], first * self._type.itemsize * math.prod(self.shape[1:]))
        if size != rows.nbytes:
            raise OSError(f"{size} bytes were there instead of {rows.nbytes}")
        return rows

    def mapped(self) -> np.memmap[Any, Any]:
        """The rows without reading them; what is changed there is changed in memory alone."""
        return np.memmap(self._file, dtype=self._type, mode="c", shape=self.shape)


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features ``float64 [n,d]`` in a file; an index copies those rows into memory."""

    _written: Writer

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""
        return self._written.shape

    def __len__(self) -> int:
        """How many rows there are."""
        return self.shape[0]

    def __getitem__(self, rows: Picked, /) -> Features:
        """Some of the rows, in memory.

        They are read and not mapped: pages of a mapped file count as resident, and rows that are drawn at random lie on all of them.
        """
        picked = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        taken = np.empty((len(picked), self.shape[1]))
        stretches = picked // _STRETCH
        for stretch in np.unique(stretches):
            here = stretches == stretch
            first = int(stretch) * _STRETCH
            taken[here] = self._written.read(first, min(_STRETCH, len(self) - first))[picked[here] - first]
        return taken


def write_table(batches: Iterable[Features]) -> FeatureTable:
    """Write features ``float64 [n,d]``, batch by batch, to a table."""
    writer = Writer()
    for batch in batches:
        writer.append(batch)
    return FeatureTable(writer)


def extract(extractor: FeatureExtractor, blocks: Iterable[Tensor]) -> FeatureTable:
    """The features of images ``uint8 [N,H,W,C]`` that come in blocks."""
    return write_table(extractor.features(images) for images in blocks)


def images_in_file(writer: Writer) -> Tensor:
    """Images that were written, as a tensor ``uint8 [N,H,W,C]`` whose pages are read when they are looked at."""
    return torch.from_numpy(writer.mapped())


def blocks(batches: Iterable[Tensor], size: int = BLOCK) -> Iterator[Tensor]:
    """The same rows in blocks of exactly ``size``, but for the last, so that what looks at them does not depend on how they came."""
    waiting: Tensor | None = None
    for batch in batches:
        waiting = batch if waiting is None else torch.cat([waiting, batch])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting is not None and len(waiting):
        yield waiting
