"""How large the pages of a parquet file unpack: asked of every page, for the sums in the file's footer need not be true.

pyarrow takes as much memory for a page as the page's own header says, and does not tell these headers. They are structs of Thrift's compact
protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), defined in parquet.thrift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any

_DICTIONARY_PAGE = 2
_MAX_HEADER_BYTES = 1 << 20
_MAX_DEPTH = 8


class PageError(ValueError):
    """The bytes are no page header."""


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


def read_pages(handle: IO[bytes], start: int, length: int) -> Pages:
    """Read the headers of all pages in ``length`` bytes from ``start``.

    Raises:
        PageError: there is something else in between.
    """
    largest = values = words = 0
    end = start + length
    while start < end:
        handle.seek(start)
        header = _Compact(handle).struct()
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
    """A reader of Thrift's compact protocol that keeps numbers and structs, and passes over the rest."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._left = _MAX_HEADER_BYTES

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MAX_DEPTH:
            raise PageError("a page header is nested too deep")
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
            case 12:
                return self.struct(depth + 1)
            case _:  # a page header has no lists, sets or maps
                raise PageError("a page header holds an unknown type")

    def _take(self, count: int) -> bytes:
        self._left -= count
        data = self._handle.read(count) if self._left >= 0 else b""
        if len(data) != count:
            raise PageError("a page header is cut or too long")
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
                raise PageError("a page header holds an endless number")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
