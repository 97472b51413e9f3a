"""The dataset as its judges see it: what denoisers were trained on, and what they were not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.data.datasets import load_dataset
from erasediff.data.split import partition
from erasediff.records.config import RunConfig


@dataclass(frozen=True)
class RealImages:
    """Real images ``uint8 [N,H,W,C]`` with labels, apart by what may see them."""

    holdout: Tensor
    holdout_labels: Tensor
    train: Tensor
    train_labels: Tensor
    classes: int


def real_images(config: RunConfig) -> RealImages:
    """The dataset in two parts: held-out images for the detector, training images to measure the detector on."""
    dataset = load_dataset(config.dataset)
    part = partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed)

    def pick(values: NDArray[np.uint8] | NDArray[np.int64], chosen: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values[chosen])

    return RealImages(
        pick(dataset.images, part.holdout),
        pick(dataset.labels, part.holdout),
        pick(dataset.images, part.train),
        pick(dataset.labels, part.train),
        dataset.classes,
    )
