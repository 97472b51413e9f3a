"""Shards of encoded pictures, ``.parquet``, as people write them with pandas, Spark or Hugging Face's ``datasets``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from erasediff.data.readers import limits
from erasediff.data.readers.batches import Batch, Picture, decoded
from erasediff.data.readers.names import LabelKinds
from erasediff.data.readers.pages import Chunk, PageError, Pages, read_chunks, read_pages
from erasediff.errors import BadInput

_LEAVES = ("image", "image.bytes", "label")
"""The columns that are read, by their paths in the file."""
_BATCH_BYTES = 64 << 20
_MAX_PAGE_BYTES = 128 << 20
_MAX_BATCH = 256


def read_parquet(paths: list[Path], folder: Path, size: int | None) -> Iterator[Batch]:
    """Read shards in parts: columns ``image`` (the bytes of PNG, JPEG or BMP, or Hugging Face's struct of them) and ``label``.

    Raises:
        BadInput: a shard is damaged, inconsistent or too large, or names its classes otherwise than the first.
    """
    return decoded(_pictures(paths, folder), folder, size)


def _pictures(paths: list[Path], folder: Path) -> Iterator[Picture]:
    import pyarrow as pa

    first: tuple[Path, list[str] | None] | None = None  # of those with numbers
    kinds = LabelKinds()
    for path in paths:
        if path.stat().st_size > limits.MAX_SHARD_BYTES:
            raise BadInput(f"{path} is larger than {limits.MAX_SHARD_BYTES} bytes: split it into smaller shards.")
        try:
            with _Shard(path, path.relative_to(folder).as_posix()) as shard:
                if not shard.rows:
                    continue
                column, numbers = shard.check_columns(), shard.has_numbers()
                names = shard.class_names() if numbers else None
                kinds.check(path, numbers and names is None)
                first = first or ((path, names) if numbers else None)
                if first is not None and numbers and names != first[1]:
                    raise BadInput(f"{path} and {first[0]} number their classes in other ways (ClassLabel): write them from one dataset.")
                yield from shard.pictures(column, names)
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: text that is not UTF-8
            raise BadInput(f"{path} is not a whole parquet file ({type(error).__name__}): write it again.") from None


class _Shard:
    """One file, open."""

    def __init__(self, path: Path, name: str) -> None:
        import pyarrow.parquet as pq

        self._path, self._name = path, name
        self._file = pq.ParquetFile(path, buffer_size=1 << 20, page_checksum_verification=True)
        self._schema = self._file.schema_arrow
        self.rows: int = self._file.metadata.num_rows

    def __enter__(self) -> _Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def class_names(self) -> list[str] | None:
        """The names behind the numbers of column ``label``, where ``datasets`` has written them."""
        text = (self._schema.metadata or {}).get(b"huggingface")
        if text is None:
            return None
        try:
            label = json.loads(text)["info"]["features"].get("label", {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(f"{self._path} has metadata of 'huggingface' that describe no columns: write it again without them.") from None
        if not isinstance(label, dict) or label.get("_type") != "ClassLabel":
            return None
        names = label.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadInput(f"{self._path} has a ClassLabel without a list of names: write it again with the names.")
        return names

    def has_numbers(self) -> bool:
        """Whether column ``label`` holds whole numbers."""
        import pyarrow as pa

        return bool(pa.types.is_integer(_values(self._schema.field("label").type)))

    def pictures(self, column: str, names: list[str] | None) -> Iterator[Picture]:
        import pyarrow as pa

        row = 0
        for batch in self._file.iter_batches(batch_size=self._batch_rows(), columns=[column, "label"], use_threads=False):
            images, labels = batch.column("image"), batch.column("label")
            if pa.types.is_struct(images.type):
                images = images.flatten()[0]
            if images.null_count or labels.null_count:
                at = next(at for at in range(len(batch)) if not (images[at].is_valid and labels[at].is_valid))
                raise BadInput(f"row {row + at} of {self._path} has no label or no bytes of an image: fill it or remove it.")
            for image, label in zip(images.to_pylist(), labels.to_pylist(), strict=True):
                if len(image) > limits.MAX_PICTURE_FILE_BYTES:
                    what, largest = f"row {row} of {self._path}", limits.MAX_PICTURE_FILE_BYTES
                    raise BadInput(f"{what} has an image of {len(image)} bytes, more than {largest}: reduce it.")
                name = label if isinstance(label, str) else self._name_of(label, names, row)
                yield Picture(image, name, f"image row {row} of {self._name}")
                row += 1
        if row != self.rows:
            raise BadInput(f"{self._path} holds {row} rows where it promises {self.rows}: write it again.")

    def _name_of(self, label: int, names: list[str] | None, row: int) -> str:
        if names is None:
            return str(label)
        if not 0 <= label < len(names):
            raise BadInput(f"row {row} of {self._path} has the label {label}, which its ClassLabel does not name: name the class or remove the row.")
        return names[label]

    def check_columns(self) -> str:
        """Check the types of both columns; returns the leaf that holds the pictures' bytes."""
        import pyarrow as pa

        for name in ("image", "label"):
            if (found := self._schema.names.count(name)) != 1:
                what = "no column" if not found else "more than one column"
                raise BadInput(f"{self._path} has {what} '{name}': a parquet shard holds image and label.")
        image, label = self._schema.field("image").type, _values(self._schema.field("label").type)
        nested = pa.types.is_struct(image)
        encoded = _values(image.field("bytes").type) if nested and image.get_field_index("bytes") >= 0 else _values(image)
        binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
        if not any(is_type(encoded) for is_type in binary):
            raise BadInput(f"column 'image' of {self._path} is {str(image)[:200]}: give the bytes of PNG or JPEG files, or a struct with them.")
        text = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if not any(is_type(label) for is_type in text):
            raise BadInput(f"column 'label' of {self._path} is {str(label)[:200]}: give whole numbers or names.")
        return "image.bytes" if nested else "image"

    def _batch_rows(self) -> int:
        """How many rows fit into the bytes of a batch, whatever the footer says: no value is larger than the page or the dictionary that it is in."""
        largest = max((pages.largest for pages in self._pages()), default=1)
        if largest > _MAX_PAGE_BYTES:
            raise BadInput(f"{self._path} has a page that unpacks to {largest} bytes, more than {_MAX_PAGE_BYTES}: write it with smaller pages.")
        return max(1, min(_MAX_BATCH, _BATCH_BYTES // max(1, largest)))

    def _pages(self) -> Iterator[Pages]:
        try:
            with self._path.open("rb") as handle:
                for chunk in read_chunks(handle):
                    if chunk.column in _LEAVES:
                        yield self._checked(chunk, read_pages(handle, chunk.start, chunk.length))
        except (PageError, OverflowError) as error:
            raise BadInput(f"{self._path} is not a whole parquet file ({error}): write it again.") from None

    def _checked(self, chunk: Chunk, pages: Pages) -> Pages:
        if chunk.rows > limits.MAX_ROWS_OF_A_GROUP:
            raise BadInput(f"{self._path} has a group of {chunk.rows} rows, more than {limits.MAX_ROWS_OF_A_GROUP}: write smaller ones.")
        # pyarrow makes room for as many values as a header promises, however few bytes hold them.
        if pages.values > chunk.rows or pages.words * 4 > pages.largest:
            raise BadInput(f"{self._path} promises more values than it has rows or bytes: write it again.")
        return pages


def _values(type_: Any) -> Any:
    """The type behind a dictionary, such as pandas' categories are."""
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_
