"""The files of MNIST's format: ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, plain or with ``.gz``."""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from erasediff.data.readers import limits
from erasediff.data.readers.batches import Batch, Numbered, check_array
from erasediff.errors import BadInput

_IMAGES = "train-images-idx3-ubyte"
_LABELS = "train-labels-idx1-ubyte"


def read_idx(folder: Path, size: int | None) -> Iterator[Batch]:
    """Read both files side by side.

    Raises:
        BadInput: missing, damaged, truncated or inconsistent files.
    """
    pictures, numbers = _idx_file(folder, _IMAGES), _idx_file(folder, _LABELS)
    with _opened(pictures, 3) as images, _opened(numbers, 1) as labels:
        check_array(images.shape, labels.shape[0], str(folder), size)
        step = limits.batch_of(math.prod(images.shape[1:]))
        for start in range(0, images.shape[0], step):
            count = min(step, images.shape[0] - start)
            names = list(map(str, labels.read(count).tolist()))
            left = images.shape[0] - start - count
            yield Batch(images.read(count)[..., np.newaxis], names, Numbered("image", start, pictures.name), left)
        images.check_end()
        labels.check_end()


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise BadInput(f"the dataset folder {folder} has neither {name} nor {name}.gz: add one of them.")


@dataclass
class _Idx:
    """An open file behind its header. What the header promises is read in parts, and counted."""

    path: Path
    handle: IO[bytes]
    shape: tuple[int, ...]
    done: int = 0

    @property
    def promised(self) -> int:
        return math.prod(self.shape)

    def read(self, count: int) -> NDArray[np.uint8]:
        size = count * math.prod(self.shape[1:])
        data = _read(self.handle, size, self.path)
        self.done += len(data)
        if len(data) != size:
            raise BadInput(f"{self.path} holds {self.done} bytes where its header promises {self.promised}: download it again.")
        return np.frombuffer(data, dtype=np.uint8).reshape(count, *self.shape[1:])

    def check_end(self) -> None:
        if _read(self.handle, 1, self.path):
            raise BadInput(f"{self.path} holds more than the {self.promised} bytes that its header promises: download it again.")


@contextlib.contextmanager
def _opened(path: Path, dimensions: int) -> Iterator[_Idx]:
    with contextlib.ExitStack() as stack:
        handle: IO[bytes] = stack.enter_context(path.open("rb"))
        if path.suffix == ".gz":
            handle = stack.enter_context(cast("IO[bytes]", gzip.GzipFile(fileobj=handle)))
        header = _read(handle, 4 * (1 + dimensions), path)
        if len(header) < 4 * (1 + dimensions):
            raise BadInput(f"{path} ends within its header: download it again.")
        magic, *shape = struct.unpack(f">{1 + dimensions}I", header)
        expected = 0x0800 | dimensions
        if magic != expected:
            raise BadInput(f"{path} has the magic number {magic} instead of {expected}: check which file it is.")
        yield _Idx(path, handle, tuple(shape))


def _read(handle: IO[bytes], size: int, path: Path) -> bytes:
    try:
        return handle.read(size)
    except (OSError, EOFError, zlib.error) as error:
        what = "gzip" if path.suffix == ".gz" else "idx"
        raise BadInput(f"{path} is not a whole {what} file ({type(error).__name__}): download it again.") from None
