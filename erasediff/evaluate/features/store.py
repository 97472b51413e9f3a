"""Tables of features in a file, written batch by batch and read in parts, so that memory does not grow with the number of images.

The file has no name from its first moment on: a process that is killed leaves nothing behind. It lies where ``TMPDIR`` says.
"""

from __future__ import annotations

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
from erasediff.files import explained

BLOCK = 1000
"""Images that are in memory at once."""


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
        with explained(Path(tempfile.gettempdir())):
            self._file.write(np.ascontiguousarray(rows).data)
            self._file.flush()
        self._count += len(rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, …)``."""
        if self._row is None:
            raise ValueError("nothing was written")
        return self._count, *self._row

    def mapped(self, mode: str) -> np.memmap[Any, Any]:
        """The rows as a new mapping; pages that it touches are given back with it."""
        return np.memmap(self._file, dtype=self._type, mode=mode, shape=self.shape)  # type: ignore[call-overload, no-any-return]


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
        """Some of the rows, in memory. Each look maps the file anew: a mapping that is kept would keep every page it ever touched."""
        return np.array(self._written.mapped("r")[rows])


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
    return torch.from_numpy(writer.mapped("c"))  # copy on write: torch warns of memory that cannot be written


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
