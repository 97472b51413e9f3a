"""Find pictures of the forget set that lie in the dataset under another label too: an erasure would keep what it is to forget."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasediff.data.datasets import ImageDataset
from erasediff.data.split import Split
from erasediff.errors import BadInput
from erasediff.files import sha256_bytes, write_atomic

TWINS = "twins.csv"
"""The list of them, for whoever keeps the dataset. It goes once a run finds none."""


def twins(images: NDArray[np.uint8], split: Split) -> list[tuple[int, int]]:
    """The positions of retained images with the very pixels of a forget image, each with that one's.

    Args:
        images: uint8 [N, H, W, C].
        split: of these images.
    """
    known = {_digest(images[at]): int(at) for at in split.forget}
    return [(int(at), known[digest]) for at in split.retain if (digest := _digest(images[at])) in known]


def _digest(image: NDArray[np.uint8]) -> str:
    return sha256_bytes(image.tobytes())


def check_apart(dataset: ImageDataset, split: Split, folder: Path) -> None:
    """Refuse a dataset in which a picture of the forget set lies under a label that is retained, in the part for training or held out.

    Args:
        dataset: the dataset.
        split: of its images.
        folder: where the list of such pictures goes.

    Raises:
        BadInput: there are some.
    """
    found = twins(dataset.images, split)
    if not found:
        return
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("position", "label", "same_as"))
    lines.writerows((at, dataset.labels[at], twin) for at, twin in found)
    write_atomic(folder / TWINS, text.getvalue().encode(), mode=0o600)
    labels = ", ".join(str(label) for label in sorted({int(dataset.labels[at]) for at, _ in found}))
    raise BadInput(
        f"{len(found)} pictures of dataset {dataset.name} have the very pixels of a picture to forget and lie under other labels ({labels}), so the "
        f"model would keep them: remove them or label them alike; {folder / TWINS} lists them by their positions, from 0."
    )
