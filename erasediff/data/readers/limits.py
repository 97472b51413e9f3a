"""How large anything from outside may be. Each limit is held against what is read, never only against what a header says."""

from __future__ import annotations

from pathlib import Path

from erasediff.errors import BadInput
from erasediff.records.config import MAX_SIDE

MAX_SIDE_TO_REDUCE = 4096
MAX_DATASET_BYTES = 4 << 30
MAX_PICTURE_FILE_BYTES = 16 << 20
MAX_CSV_BYTES = 256 << 20
MAX_SHARD_BYTES = 2 << 30
MAX_ROWS_OF_A_GROUP = 16 << 20
BATCH_BYTES = 16 << 20
MAX_BATCH = 1024


def largest_side(size: int | None) -> int:
    """The largest side of an image, in pixels; larger where it is reduced to ``size``."""
    return MAX_SIDE if size is None else MAX_SIDE_TO_REDUCE


def batch_of(image_bytes: int) -> int:
    """How many images of this many bytes are read at once."""
    return max(1, min(MAX_BATCH, BATCH_BYTES // max(1, image_bytes)))


def check_bytes(size: int, source: Path) -> None:
    """Refuse a dataset that is larger than this is made for.

    Raises:
        BadInput: more than 4 GiB of pixels.
    """
    if size > MAX_DATASET_BYTES:
        raise BadInput(f"the dataset {source} has or promises {size} bytes of pixels, above {MAX_DATASET_BYTES}: take fewer or smaller images.")
