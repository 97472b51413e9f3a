"""The dataset as its judges see it: what denoisers were trained on, and what they were not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.data.datasets import ImageDataset
from erasediff.data.split import partition
from erasediff.records.config import DatasetConfig


@dataclass(frozen=True)
class RealImages:
    """Real images ``uint8 [N,H,W,C]`` with labels, apart by what may see them."""

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
    """A dataset in two parts: held-out images for the detector, training images to measure the detector on."""
    part = partition(dataset.labels, config.holdout_share, config.holdout_seed)

    def pick(values: NDArray[np.uint8] | NDArray[np.int64], chosen: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values[chosen])

    return RealImages(
        pick(dataset.images, part.holdout),
        pick(dataset.labels, part.holdout),
        pick(dataset.images, part.train),
        pick(dataset.labels, part.train),
        dataset.class_names,
    )
