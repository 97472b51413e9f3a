"""What an extractor of features is, and a trial that it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.evaluate.statistics import Features

_FAILURES = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, NotImplementedError)


class FeatureExtractor(Protocol):
    """Images to the features that R2 and R3 compare. It is named by a digest, so that it can be pinned."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything it was loaded from."""
        ...

    def features(self, images: Tensor) -> Features:
        """Features ``float64 [N,d]`` of ``uint8 [N,H,W,C]``, looked at batch by batch."""
        ...


@torch.no_grad()
def in_batches(images: Tensor, size: int, look: Callable[[Tensor], Tensor]) -> Features:
    """What ``look`` makes of ``uint8 [N,H,W,C]``, ``size`` images at a time: ``float64 [N,d]``."""
    return np.concatenate([look(batch).double().numpy() for batch in torch.split(images, size)])


def to_colour(images: Tensor) -> Tensor:
    """``uint8 [N,H,W,C]`` to ``uint8 [N,3,H,W]``: a grey image is its own red, green and blue."""
    return images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


def check_extractor(extractor: FeatureExtractor, images: Tensor, what: str) -> FeatureExtractor:
    """Look at a few images twice before anything depends on it.

    Some models draw random numbers when they look, and some cannot look at images of this shape; either would be found after
    the erasure only.

    Args:
        extractor: the one to try.
        images: a few of those it will see, ``uint8 [N,H,W,C]``.
        what: what a sentence calls it.

    Raises:
        BadInput: it fails, or gives no finite ``[N,d]``, or another one the second time.
    """
    try:
        first, again = extractor.features(images), extractor.features(images)
    except _FAILURES as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        shape = "x".join(str(side) for side in images.shape[1:])
        raise BadInput(f"{what} cannot look at images of {shape} ({problem}): take a model and a preprocessor_config.json that fit them.") from None
    if first.ndim != 2 or first.shape[1] < 1 or not np.isfinite(first).all():
        raise BadInput(f"{what} gives no finite features: take another model.")
    if not np.array_equal(first, again):
        raise BadInput(f"{what} gives other features when it looks at an image again: take a model that draws no random numbers.")
    return extractor
