"""A folder of shards of one kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from erasediff.data.readers.batches import Batch
from erasediff.data.readers.names import no_file, shown
from erasediff.data.readers.npz import read_npz
from erasediff.data.readers.parquet import read_parquet
from erasediff.data.readers.webdataset import read_webdataset
from erasediff.errors import BadInput

_SUFFIXES = (".npz", ".parquet", ".tar")


def read_shards(folder: Path, size: int | None) -> Iterator[Batch]:
    """Read every ``.npz``, every ``.parquet`` or every ``.tar`` file of a folder, in order of their names.

    Where none lies in the folder itself, those of the folders below it are read, as in ``data/train-00000.parquet``. What begins with a dot is
    left out.

    Raises:
        BadInput: no shards, several kinds, shards both here and below, or a shard that is damaged, inconsistent or too large.
    """
    shards = [path for path in folder.rglob("*") if path.suffix in _SUFFIXES and not _hidden(path, folder)]
    if odd := [path for path in shards if not path.is_file()]:
        raise no_file(odd[0].relative_to(folder).as_posix())
    kinds = sorted({path.suffix for path in shards})
    if not kinds:
        raise BadInput(f"the dataset folder {folder} holds neither .npz nor .parquet nor .tar files: give shards of one kind.")
    if len(kinds) > 1:
        raise BadInput(f"the dataset folder {folder} holds both {' and '.join(kinds)} files: give shards of one kind.")
    below = [path for path in shards if path.parent != folder]
    if below and len(below) < len(shards):
        deeper = shown(below[0].relative_to(folder).as_posix())
        raise BadInput(f"the dataset folder {folder} holds shards of its own and {deeper} below it: keep all in one place.")
    shards.sort()
    if kinds == [".npz"]:
        return read_npz(shards, size)
    return (read_parquet if kinds == [".parquet"] else read_webdataset)(shards, folder, size)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
