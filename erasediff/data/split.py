"""The forget/retain split: disjoint, complete, and checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erasediff.errors import BadInput, IntegrityError
from erasediff.records.names import shown_names

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Disjoint and complete: ``train`` for denoisers, ``holdout`` for detectors and for later attacks."""

    train: Indices
    holdout: Indices


def partition(labels: NDArray[np.int64], holdout_share: float, seed: int) -> Partition:
    """Hold out ``holdout_share`` of every class, at least one image and never all of them.

    Args:
        labels: ``int64 [N]``.
        holdout_share: share of every class that is held out.
        seed: of the draw; the same labels and seed always give the same partition.
    """
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(holdout_share * len(members))), len(members) - 1)
        held.append(members[:count])
    holdout = np.sort(np.concatenate(held)).astype(np.int64)
    return Partition(np.setdiff1d(np.arange(len(labels), dtype=np.int64), holdout), holdout)


@dataclass(frozen=True, eq=False)
class Split:
    """Which image belongs where; each an ascending int64 array of positions in the dataset.

    Attributes:
        forget: images of the label that is to be forgotten.
        retain: images that the model keeps.
        gone: images of labels forgotten earlier, which are in neither set.
    """

    forget: NDArray[np.int64]
    retain: NDArray[np.int64]
    gone: NDArray[np.int64]


def split_dataset(labels: NDArray[np.int64], class_names: Sequence[str], label: int, gone_labels: Collection[int] = ()) -> Split:
    """Split a dataset by one label.

    Args:
        labels: int64 [N], positions in ``class_names``.
        class_names: what errors call the classes.
        label: the label to forget.
        gone_labels: labels that were forgotten earlier, or are forgotten in the same run.

    Raises:
        BadInput: the label is already forgotten, has no images, or is all that is left.
    """
    if label in gone_labels:
        raise BadInput(f"class {shown_names([class_names[label]])} is already forgotten: choose another class.")
    gone = np.isin(labels, np.array(sorted(gone_labels), dtype=np.int64))
    forget = labels == label
    retain = ~(forget | gone)
    if not forget.any():
        raise BadInput(f"the dataset has no image of class {shown_names([class_names[label]])}, so there is nothing to forget: choose another class.")
    if not retain.any():
        every = shown_names([class_names[row] for row in sorted({label, *gone_labels})])
        raise BadInput(f"nothing would be retained, since the dataset has no image of any class but {every}: forget fewer classes.")
    split = Split(*(np.flatnonzero(mask).astype(np.int64) for mask in (forget, retain, gone)))
    check_split(split, len(labels))
    return split


def check_split(split: Split, count: int) -> None:
    """Check that a split puts each of ``count`` images into exactly one set.

    Raises:
        IntegrityError: an image is in two sets or in none, or a set is unsorted.
    """
    for name in ("forget", "retain", "gone"):
        indices = getattr(split, name)
        if indices.dtype != np.int64 or indices.ndim != 1 or (np.diff(indices) <= 0).any():
            raise IntegrityError(f"the {name} set is not an ascending list of distinct positions: make the split again.")
    together = np.sort(np.concatenate([split.forget, split.retain, split.gone]))
    if not np.array_equal(together, np.arange(count)):
        raise IntegrityError(f"the split does not put each of {count} images into exactly one set: make the split again.")
