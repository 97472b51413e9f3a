"""How large the pages of a parquet file unpack: asked of every page, for the sums in the file's footer need not be true.

pyarrow takes as much memory for a page as the page's own header says, and does not tell these headers; asked for a column of a damaged footer, it
ends the process. Headers and footer are structs of Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), defined in parquet.thrift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any

_DICTIONARY_PAGE = 2
_MAGIC = b"PAR1"
_MAX_HEADER_BYTES = 1 << 20
_MAX_FOOTER_BYTES = 64 << 20
_MAX_DEPTH = 8


class PageError(ValueError):
    """The bytes are no page header, or no footer."""


@dataclass(frozen=True)
class Chunk:
    """Where the pages of one column and one group of rows lie, and how many rows the group promises."""

    column: str
    start: int
    length: int
    rows: int


@dataclass(frozen=True)
class Pages:
    """What the pages of one column chunk promise.

    Attributes:
        largest: bytes of the largest page once it is unpacked.
        values: values in the pages of data.
        words: values in the dictionary.
    """

    largest: int
    values: int
    words: int


def read_chunks(handle: IO[bytes]) -> list[Chunk]:
    """Read a file's footer.

    Raises:
        PageError: the file has none, or it is damaged.
    """
    end = handle.seek(0, 2)
    handle.seek(max(0, end - 8))
    tail = handle.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > end - 8:
        raise PageError("there is no footer")
    handle.seek(end - 8 - length)
    footer = _Compact(handle, min(length, _MAX_FOOTER_BYTES)).struct()
    try:
        return [_chunk(column[3], group[3]) for group in footer[4] for column in group[1]]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise PageError("the footer is damaged") from None


def _chunk(column: dict[int, Any], rows: int) -> Chunk:
    name = b".".join(column[3]).decode()
    starts = [start for start in (column.get(11), column[9]) if start]  # the dictionary, if there is one, and the data
    return Chunk(name, int(min(starts, default=0)), int(column[7]), int(rows))


def read_pages(handle: IO[bytes], start: int, length: int) -> Pages:
    """Read the headers of all pages in ``length`` bytes from ``start``.

    Raises:
        PageError: there is something else in between.
    """
    largest = values = words = 0
    end = start + length
    while start < end:
        handle.seek(start)
        header = _Compact(handle, _MAX_HEADER_BYTES).struct()
        kind, unpacked, packed = header.get(1), header.get(2), header.get(3)
        if not isinstance(kind, int) or not isinstance(unpacked, int) or not isinstance(packed, int) or unpacked < 0 or packed < 0:
            raise PageError("a page has no size")
        counted = header.get(5) or header.get(8) or header.get(7) or {}
        count = counted.get(1, 0) if isinstance(counted, dict) else 0
        largest = max(largest, unpacked)
        if kind == _DICTIONARY_PAGE:
            words += count
        else:
            values += count
        start = handle.tell() + packed
    return Pages(largest, values, words)


class _Compact:
    """A reader of Thrift's compact protocol."""

    def __init__(self, handle: IO[bytes], limit: int) -> None:
        self._handle = handle
        self._left = limit

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MAX_DEPTH:
            raise PageError("a header is nested too deep")
        fields: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._zigzag()
            fields[field] = self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2:  # a bool is its type
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._take(8)
            case 8:
                return self._take(self._varint())
            case 9 | 10:
                return self._list(depth + 1)
            case 12:
                return self.struct(depth + 1)
            case _:  # parquet has no maps
                raise PageError("a header holds an unknown type")

    def _list(self, depth: int) -> list[Any]:
        if depth > _MAX_DEPTH:
            raise PageError("a header is nested too deep")
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        kind = head & 15
        return [self._byte() if kind in (1, 2) else self._value(kind, depth) for _ in range(count)]

    def _take(self, count: int) -> bytes:
        self._left -= count
        data = self._handle.read(count) if self._left >= 0 else b""
        if len(data) != count:
            raise PageError("a header is cut or too long")
        return data

    def _byte(self) -> int:
        return self._take(1)[0]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise PageError("a header holds an endless number")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
