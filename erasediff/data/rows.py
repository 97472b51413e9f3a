"""Rows of numbers in a file, written batch by batch and read in parts, so that memory does not grow with how many there are.

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
from numpy.typing import NDArray

from erasediff.files import explain_disk_errors

Picked = slice | NDArray[np.int64]
_STRETCH_BYTES = 2 << 20
"""What is read at once where rows are picked one by one."""
_BLOCK_BYTES = 1 << 20
THREADS = 2
"""How many threads read, hash or compute over rows at once; each of these lets go of the interpreter."""


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

    @property
    def row_bytes(self) -> int:
        """The bytes of a row."""
        return self._type.itemsize * math.prod(self.shape[1:])

    def read(self, first: int, count: int) -> NDArray[Any]:
        """``count`` rows from the ``first`` on, in memory."""
        rows = np.empty((count, *self.shape[1:]), self._type)
        done, left = 0, rows.reshape(-1).view(np.uint8)
        while done < rows.nbytes:  # the system reads at most 2 GiB at once
            size = os.preadv(self._file.fileno(), [left[done:].data], first * self.row_bytes + done)
            if not size:
                raise OSError(f"{done} bytes were there instead of {rows.nbytes}")
            done += size
        return rows

    def mapped(self) -> np.memmap[Any, Any]:
        """The rows without reading them; what is changed there is changed in memory alone."""
        return np.memmap(self._file, dtype=self._type, mode="c", shape=self.shape)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows ``[n, …]`` that were written; an index copies those rows into memory."""

    _written: Writer

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, …)``."""
        return self._written.shape

    def __len__(self) -> int:
        """How many rows there are."""
        return self.shape[0]

    def __getitem__(self, rows: Picked, /) -> NDArray[Any]:
        """Some of the rows, in memory.

        They are read and not mapped: pages of a mapped file count as resident, and rows that are drawn at random lie on all of them.
        """
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step == 1:
                return self._written.read(first, max(0, last - first))
            rows = np.arange(first, last, step)
        size = max(1, _STRETCH_BYTES // self._written.row_bytes)
        taken = np.empty((len(rows), *self.shape[1:]), self._written.read(0, 0).dtype)
        order = np.argsort(rows, kind="stable")
        _, starts = np.unique(rows[order] // size, return_index=True)
        for here in np.split(order, starts[1:]) if len(rows) else ():
            first, last = int(rows[here[0]]), int(rows[here[-1]])
            if first < 0 or last >= len(self):
                raise IndexError(f"there is no row {first if first < 0 else last} among {len(self)}")
            taken[here] = self._written.read(first, last + 1 - first)[rows[here] - first]
        return taken

    def parts(self) -> list[slice]:
        """All rows in their order, by the MiB."""
        size = max(1, _BLOCK_BYTES // max(1, self._written.row_bytes))
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All rows in their order, a MiB in memory at a time."""
        return (self[part] for part in self.parts())


def write_rows(batches: Iterable[NDArray[Any]]) -> Rows:
    """Write rows of one shape and type, batch by batch."""
    writer = Writer()
    for batch in batches:
        writer.append(batch)
    return Rows(writer)
