"""Gradients of the denoising loss at the base, which several methods need before their first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from erasediff.errors import NonFinite
from erasediff.models.noised import NoisedBatch
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.workbench import Gradient, Overflow, Workbench

SHARE = 0.1
"""Batches of a prelude, as a share of ``erase.steps``: 50 at the default, 3,200 noised images at batch size 64."""


def base_gradients(bench: Workbench, purpose: str, draw: Callable[[Randomness], NoisedBatch]) -> Iterator[Gradient]:
    """Gradients of the denoising loss at the weights before the first step, over batches that ``draw`` takes. 1F+1B each.

    They are a function of the base, the data and the seed: each purpose has its own random numbers.

    Raises:
        NonFinite: a loss or a gradient is NaN or infinite.
    """
    random = bench.random_of(purpose)
    for _ in range(math.ceil(SHARE * bench.config.steps)):
        yield _gradient(bench, purpose, draw(random))


def _gradient(bench: Workbench, name: str, batch: NoisedBatch) -> Gradient:
    while True:
        try:
            gradient = bench.denoising_gradient(name, batch)
            break
        except Overflow:
            bench.compute.loss_scale.overflowed()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in gradient.tensors):
        raise NonFinite(f"the gradient of the {name} is not finite")
    return gradient


def fisher_diagonal(bench: Workbench, purpose: str, draw: Callable[[Randomness], NoisedBatch]) -> tuple[list[Tensor], float]:
    """Mean square of a batch's gradient, entry by entry, and the mean loss.

    The Fisher information of a sample is the mean square of *its* gradient. Near a minimum gradients of samples have
    mean 0, so that of a batch of B is B times smaller: it is cheaper by B backward passes, and B is put back where the
    scale matters.
    """
    squares = [torch.zeros_like(parameter) for parameter in bench.parameters]
    losses = []
    for gradient in base_gradients(bench, purpose, draw):
        torch._foreach_addcmul_(squares, gradient.tensors, gradient.tensors)
        losses.append(gradient.loss)
    torch._foreach_div_(squares, len(losses))
    return squares, sum(losses) / len(losses)
