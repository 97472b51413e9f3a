"""A model of the class-conditional family around a tiny UNet."""

from __future__ import annotations

import torch

from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.records.config import SamplerConfig


def model_of(unet: torch.nn.Module) -> ClassConditionalUNet:
    """It is sampled by the default solver on the schedule that models are trained with here."""
    return ClassConditionalUNet.of(unet, build_scheduler(SamplerConfig(), squared_cosine(1000)))
