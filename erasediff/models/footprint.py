"""How much memory it takes to train a model, from its configuration alone: nothing is built and no image is read.

The parameters are counted exactly; a test compares the count with the network itself. The activations are estimated.
"""

from __future__ import annotations

import math
from itertools import pairwise

from erasediff.records.config import DatasetConfig, DenoiserConfig, RunConfig
from erasediff.records.sizes import TrainingSize

_FLOAT, _GIB = 4, 2**30
_DIGITS_SIDE, _UNKNOWN_SIDE = 8, 64
_CHANNELS, _CLASSES, _IMAGES = 3, 100, 50_000
"""Assumed of a dataset that may lie on the cluster alone."""
_CPU_FLOOR, _GPU_FLOOR = 3 * _GIB // 4, 4 * _GIB
"""The libraries: steps with the demo's model had peaks from 723 to 837 MiB on a CPU; on a GPU nothing was measured."""
_COPIES = 12
"""Weights, base, average, Adam's two moments, the forget and the retain gradient, their combination, and a checkpoint while it is written."""
_SAVED, _ALIVE = 12, 3
"""Numbers in memory for each that a residual block puts out: 9 to 12.3 were counted while a gradient is computed, and 2.8 without one."""
_HEADROOM = 1.5
_SMALL_MODEL, _THREADS = 1_000_000, 2
"""The forget and the retain gradient have a thread each; on a small model a second CPU is not worth waiting for."""


def image_side(dataset: DatasetConfig) -> int:
    """The images' side in pixels. The images may lie on the cluster alone: where the configuration does not say it, 64 is assumed."""
    return dataset.size or (_DIGITS_SIDE if dataset.kind == "digits" else _UNKNOWN_SIDE)


def parameters(config: DenoiserConfig, channels: int = _CHANNELS, classes: int = _CLASSES) -> int:
    """The parameters of the UNet that ``erasediff.models.denoiser.build_unet`` makes; by default for coloured images of a hundred classes."""
    widths = config.block_out_channels
    first, last, embedding = widths[0], widths[-1], 4 * widths[0]
    time_rows = 2 if config.conditioning == "scale-shift" else 1

    def conv(inward: int, outward: int, side: int = 3) -> int:
        return side * side * inward * outward + outward

    def block(inward: int, outward: int) -> int:
        time = time_rows * (embedding * outward + outward)
        shortcut = conv(inward, outward, 1) if inward != outward else 0
        return 2 * inward + conv(inward, outward) + time + 2 * outward + conv(outward, outward) + shortcut

    attention = 2 * last + 4 * conv(last, last, 1)
    total = conv(channels, first) + conv(first, embedding, 1) + conv(embedding, embedding, 1) + (classes + 1) * embedding
    total += 2 * first + conv(first, channels) + 2 * block(last, last) + attention
    total += sum(block(inward, outward) for inward, outward in _down_blocks(config))
    total += sum(block(inward + skipped, outward) for inward, skipped, outward in _up_blocks(config))
    total += (2 * config.layers_per_block + 1) * attention - (2 * last if time_rows == 2 else 0)  # diffusers leaves one norm out then
    return total + sum(conv(narrow, narrow) + conv(wide, wide) for narrow, wide in pairwise(widths))  # down and up between the levels


def _down_blocks(config: DenoiserConfig) -> list[tuple[int, int]]:
    """The channels into and out of each residual block on the way down."""
    widths = config.block_out_channels
    levels = zip((widths[0], *widths[:-1]), widths, strict=True)
    return [(before if layer == 0 else width, width) for before, width in levels for layer in range(config.layers_per_block)]


def _up_blocks(config: DenoiserConfig) -> list[tuple[int, int, int]]:
    """The channels into, beside (from the way down) and out of each residual block on the way up."""
    upward = config.block_out_channels[::-1]
    blocks = []
    for before, width, narrower in zip((upward[0], *upward[:-1]), upward, (*upward[1:], upward[-1]), strict=True):
        for layer in range(config.layers_per_block + 1):
            skipped = narrower if layer == config.layers_per_block else width
            blocks.append((before if layer == 0 else width, skipped, width))
    return blocks


def activations(config: DenoiserConfig, side: int) -> int:
    """The numbers that the residual blocks put out for one image."""
    sides = [max(1, side >> level) for level in range(len(config.block_out_channels))]
    per_level = 2 * config.layers_per_block + 1
    levels = sum(per_level * width * at * at for width, at in zip(config.block_out_channels, sides, strict=True))
    return levels + 2 * config.block_out_channels[-1] * sides[-1] ** 2


def training_bytes(config: RunConfig, gpus: int) -> int:
    """An estimate of the peak of the main memory of a step that trains or samples.

    On a CPU it was held against the peaks of whole steps: see docs/kubeflow.md. On GPUs the activations are in their own memory.
    """
    state = _COPIES * _FLOAT * parameters(config.denoiser)
    images = 0 if config.dataset.kind == "digits" else _IMAGES * _FLOAT * _CHANNELS * image_side(config.dataset) ** 2
    if gpus:
        return gpus * (_GPU_FLOOR + state + images)
    at_once = 2 * -(-config.erase.batch_size // config.erase.accumulation)
    if config.base_training is not None:
        at_once = max(at_once, config.base_training.batch_size)
    guided = 1 if config.sampler.guidance_scale == 1.0 else 2
    sampled = config.sampler.workers * config.sampler.batch_size * guided
    numbers = max(_SAVED * at_once, _ALIVE * sampled) * activations(config.denoiser, image_side(config.dataset))
    return _CPU_FLOOR + state + images + _FLOAT * numbers


def training_size(config: RunConfig, gpus: int) -> TrainingSize:
    """The size of a step that trains or samples: the estimate and half of it again, and a CPU for each thread that computes."""
    memory = math.ceil(_HEADROOM * training_bytes(config, gpus) / _GIB)
    small = parameters(config.denoiser) < _SMALL_MODEL
    threads = 1 if small and not gpus else max(_THREADS, config.sampler.workers)
    return TrainingSize(cpu=str(threads * max(1, gpus)), memory=f"{memory}Gi", gpus=gpus)
