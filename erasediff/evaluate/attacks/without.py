"""A model that never saw the class: what attacks bring of it is what they bring of any model."""

from __future__ import annotations

import torch
from torch import Tensor

from erasediff.evaluate.attacks.conditions import embedding_of
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.models.training import train_base
from erasediff.progress import progress
from erasediff.records.config import RunConfig


def trained_without(images: Tensor, labels: Tensor, classes: int, label: int, config: RunConfig, device: torch.device) -> ClassConditionalPipeline:
    """A base trained anew, by the base's recipe, on images of the other classes.

    Asked for the class it answers as if asked for nothing: a label that was never trained would be noise, and harder to ask.

    Args:
        images: of all classes that the base may know, ``float32 [N,C,H,W]`` in -1..1.
        labels: theirs, ``int64 [N]``.
        classes: how many classes there are; it is the null label too.
        label: the class to leave out.
        config: a run's configuration with a ``base_training`` section.
        device: where to train.
    """
    assert config.base_training is not None, "the caller checks that the config trains a base"
    stays = labels != label
    with progress("training a model without the class", config.base_training.steps) as done:
        unet, scheduler = train_base(images[stays], labels[stays], classes, config, device, lambda step, loss: done(step))
    model = ClassConditionalPipeline(unet, scheduler)
    table = embedding_of(model)
    table[label] = table[classes]
    return model
