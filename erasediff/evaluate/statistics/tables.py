"""Tables of features that are read in parts, so that what is computed from them needs the memory of a part and not of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from erasediff.data.rows import Picked

Features = NDArray[np.float64]


class Table(Protocol):
    """Rows of features ``[n,d]``: an array, or a file that is never in memory as a whole."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def __getitem__(self, rows: Picked, /) -> Features:
        """Some of the rows, in memory."""
        ...


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some rows of a table ``int64 [n]``, in that order and as often as they are named, without a copy of them."""

    table: Table
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """How many rows are named."""
        return len(self.rows)

    def __getitem__(self, rows: Picked, /) -> Features:
        """Some of them, in memory."""
        return self.table[self.rows[rows]]


def parts(table: Table, rows: int) -> Iterator[Features]:
    """The table from its first row to its last, ``rows`` at a time."""
    return (table[slice(start, start + rows)] for start in range(0, len(table), rows))
