"""Tables of features in a file, and images by the block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from erasediff.data.rows import Rows, Writer, write_rows
from erasediff.evaluate.features.extractor import FeatureExtractor

BLOCK = 1000
"""Images that are in memory at once."""


def extract(extractor: FeatureExtractor, blocks: Iterable[Tensor]) -> Rows:
    """The features of images ``uint8 [N,H,W,C]`` that come in blocks."""
    return write_rows(extractor.features(images) for images in blocks)


def images_in_file(writer: Writer) -> Tensor:
    """Images that were written, as a tensor ``uint8 [N,H,W,C]`` whose pages are read when they are looked at."""
    return torch.from_numpy(writer.mapped())


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
