"""The dataset as its judges see it: what denoisers were trained on, and what they were not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.data.datasets import ImageDataset
from erasediff.data.rows import Writer
from erasediff.data.split import partition
from erasediff.data.twins import under_two_labels
from erasediff.errors import BadInput
from erasediff.evaluate.features.store import BLOCK, images_in_file
from erasediff.records.config import DatasetConfig


@dataclass(frozen=True)
class RealImages:
    """Real images ``uint8 [N,H,W,C]``, in files, with labels, apart by what may see them."""

    holdout: Tensor
    holdout_labels: Tensor
    train: Tensor
    train_labels: Tensor
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        """How many classes the model has."""
        return len(self.class_names)


def real_images(dataset: ImageDataset, config: DatasetConfig) -> RealImages:
    """A dataset in two parts: held-out images for the detector, training images to measure the detector on.

    Where pictures to forget may lie under a retained label, no judge sees a picture that lies under two labels: neither is known to be right.

    Raises:
        BadInput: no other picture of a class is left.
    """
    part = partition(dataset.labels, config.holdout_share, config.holdout_seed)
    unclear = under_two_labels(dataset) if config.duplicates == "forget" else np.empty(0, dtype=np.int64)
    sides = [np.setdiff1d(side, unclear) for side in (part.holdout, part.train)]
    if len(unclear) and any(len(np.unique(dataset.labels[side])) < len(np.unique(dataset.labels)) for side in sides):
        raise BadInput(f"all pictures of a class of dataset {dataset.name} lie under another label too, so nothing can judge it: label them alike.")
    (holdout, holdout_labels), (train, train_labels) = (_picked(dataset, side) for side in sides)
    return RealImages(holdout, holdout_labels, train, train_labels, dataset.class_names)


def _picked(dataset: ImageDataset, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    writer = Writer()
    for start in range(0, len(chosen), BLOCK):
        writer.append(dataset.images[chosen[start : start + BLOCK]])
    return images_in_file(writer), torch.from_numpy(dataset.labels[chosen])
