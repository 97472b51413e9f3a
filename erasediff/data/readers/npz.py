"""Shards of arrays, ``.npz``: a zip archive of ``images.npy`` and ``labels.npy``."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from erasediff.data.readers import limits
from erasediff.data.readers.batches import Batch, Numbered, check_array
from erasediff.data.readers.names import LabelKinds
from erasediff.errors import BadInput
from erasediff.records.names import MAX_NAME_LENGTH

_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError, RuntimeError)
_NAMES = ("images", "labels")


def load_npz(data: bytes, path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Load the named arrays of an ``.npz`` file, bounded before it is unpacked and without unpickling.

    Args:
        data: the file's bytes.
        path: their origin, for error sentences.
        names: the arrays to load.

    Raises:
        BadInput: damaged, too large, an array missing, or an array that needs pickle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_archive(archive, path, names)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in names}
    except _UNREADABLE as error:
        raise _damaged(error, path) from None
    # numpy returns a member that is no .npy file as bytes.
    if not all(isinstance(array, np.ndarray) for array in loaded.values()):
        raise BadInput(f"{path} holds something other than arrays: save plain number arrays.")
    return loaded


def read_npz(paths: list[Path], size: int | None) -> Iterator[Batch]:
    """Read shards in parts, the images and the labels of each side by side.

    Raises:
        BadInput: a shard is damaged, inconsistent or too large, or needs pickle.
    """
    later, kinds = sum(_promised(path) for path in paths), LabelKinds()
    for path in paths:
        if path.stat().st_size > limits.MAX_SHARD_BYTES:
            raise BadInput(f"{path} is larger than {limits.MAX_SHARD_BYTES} bytes: split it into smaller shards.")
        later -= _promised(path)
        try:
            yield from _read_shard(path, size, later, kinds)
        except _UNREADABLE as error:
            raise _damaged(error, path) from None


def _promised(path: Path) -> int:
    """How many images a shard says that it has; 0 where it cannot be read, which is told when it is its turn."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as images:
            return max((0, *_header(images, path).shape[:1]))
    except (BadInput, *_UNREADABLE):
        return 0


def _read_shard(path: Path, size: int | None, later: int, kinds: LabelKinds) -> Iterator[Batch]:
    with zipfile.ZipFile(path) as archive:
        _check_archive(archive, path, _NAMES)
        with archive.open("images.npy") as pixels, archive.open("labels.npy") as names:
            images, labels = _header(pixels, path), _header(names, path)
            if images.shape[:1] == labels.shape[:1] == (0,):
                return
            _check_types(images, labels, path)
            kinds.check(path, labels.dtype.kind != "U")
            check_array(images.shape, labels.shape[0], str(path), size)
            _check_sizes(archive, images, labels)
            grey = (1,) if len(images.shape) == 3 else ()
            for start, count in _parts(images):
                shape = (count, *images.shape[1:], *grey)
                # A Fortran array holds one image after another only as a whole.
                part = images.whole() if images.fortran else images.read(count)
                texts = list(map(str, labels.read(count).tolist()))
                yield Batch(part.reshape(shape), texts, Numbered("image", start, path.name), later + images.shape[0] - start - count)


@dataclass(frozen=True)
class _Array:
    """An array that is about to be read."""

    handle: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, count: int) -> NDArray[Any]:
        """The next ``count`` of its rows."""
        return self._values((count, *self.shape[1:]))

    def whole(self) -> NDArray[Any]:
        """All of it, where it lies in Fortran's order."""
        return np.ascontiguousarray(self._values(self.shape[::-1]).T)

    def _values(self, shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape) * self.dtype.itemsize
        data = self.handle.read(size)
        if len(data) != size:
            raise EOFError
        return np.frombuffer(data, dtype=self.dtype).reshape(shape)


def _header(handle: IO[bytes], path: Path) -> _Array:
    try:
        version = np.lib.format.read_magic(handle)
    except ValueError:
        raise BadInput(f"{path} holds something other than arrays: save plain number arrays.") from None
    if version not in ((1, 0), (2, 0)):
        raise BadInput(f"{path} holds arrays with named fields: save plain number arrays.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(handle)
    if dtype.hasobject:
        raise BadInput(f"{path} holds pickled objects, which are never loaded: save plain number arrays.")
    return _Array(handle, shape, dtype, fortran)


def _check_types(images: _Array, labels: _Array, path: Path) -> None:
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise BadInput(f"{path} has images of {images.dtype} {list(shape)}: give uint8 [N, H, W] or [N, H, W, 1 or 3].")
    if len(labels.shape) != 1 or labels.dtype.kind not in "iuU":
        raise BadInput(f"{path} has labels of {labels.dtype} {list(labels.shape)}: give N whole numbers or names.")
    if labels.dtype.itemsize > 4 * MAX_NAME_LENGTH:
        raise BadInput(f"{path} has labels of {labels.dtype}: give names of up to {MAX_NAME_LENGTH} characters.")


def _check_sizes(archive: zipfile.ZipFile, *arrays: _Array) -> None:
    """The two headers of an array have to agree; what is read is counted besides."""
    for name, array in zip(_NAMES, arrays, strict=True):
        if archive.getinfo(f"{name}.npy").file_size - array.handle.tell() != array.bytes:
            raise EOFError


def _parts(images: _Array) -> Iterator[tuple[int, int]]:
    total = images.shape[0]
    step = total if images.fortran else limits.batch_of(math.prod(images.shape[1:]))
    for start in range(0, total, step):
        yield start, min(step, total - start)


def _check_archive(archive: zipfile.ZipFile, path: Path, names: tuple[str, ...]) -> None:
    size = sum(member.file_size for member in archive.infolist())
    if size > limits.MAX_SHARD_BYTES:
        raise BadInput(f"{path} unpacks to {size} bytes, more than {limits.MAX_SHARD_BYTES}: split it into smaller shards.")
    missing = [name for name in names if f"{name}.npy" not in archive.namelist()]
    if missing:
        raise BadInput(f"{path} has no array '{missing[0]}': a shard holds {' and '.join(names)}.")


def _damaged(error: Exception, path: Path) -> BadInput:
    if "pickle" in str(error) or "Object arrays" in str(error):
        return BadInput(f"{path} holds pickled objects, which are never loaded: save plain number arrays.")
    return BadInput(f"{path} is not a whole .npz file ({type(error).__name__}): write it again.")
