"""Selective Amnesia (Heng and Soh, arXiv 2305.10120): forgetting as continual learning, by replay and elastic weight consolidation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from erasediff.models.noised import NoisedBatch
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.methods.prelude import fisher_diagonal
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.workbench import Workbench

LAMBDA = 10.0
"""λ of the elastic weight consolidation: the authors' setting for CIFAR-10."""


class SelectiveAmnesia:
    """Learn a surrogate under the forgotten label, replay the others, and hold the weights that mattered. 2F+2B.

        L(θ) = E_{q(x|c_f)} ‖ε - ε_θ(x_t | c_f)‖² + E_{D_r} ‖ε - ε_θ(x_t | c)‖² + (λ/2) Σ_i F_i (θ_i - θ*_i)²

    q(x | c_f) is uniform over the pixels' range -1..1, θ* the base, F the diagonal of its Fisher information over D_f ∪ D_r.
    The penalty's gradient λ F ⊙ (θ - θ*) needs no pass.

    Source: 2305.10120, §3: the objective of Bayesian continual forgetting with the surrogate q (its Corollary 1), q
    uniform as in its experiments with diffusion models.

    Deviations: SA assumes that the training data are gone, so it generates the images for replay and for F. Here the retained
    images are available, every other method uses them, and generated images would only add the base's error. F comes from
    batches (:func:`fisher_diagonal`), multiplied by the batch size B; it draws one timestep per sample and does not sum over
    all of them. SA's losses are sums over an image's D numbers, here they are means: divided by D, the
    penalty's F is D times that of the means. So the gradient here is λ·D·B·F ⊙ (θ - θ*).
    """

    keeps_earlier: ClassVar[bool] = True

    def __init__(self, config: EraseConfig) -> None:
        self._lambda = LAMBDA if config.balance is None else config.balance
        self._stiffness: list[Tensor] = []
        self._start: list[Tensor] = []

    def prepare(self, bench: Workbench) -> None:
        """Keep θ* and find λF there."""
        data = bench.data
        images = torch.cat([data.retain, data.forget])
        labels = torch.cat([data.retain_labels, data.forget_labels])

        def draw(random: Randomness) -> NoisedBatch:
            picked = random.integers(len(images), bench.rows).to(images.device)
            return bench.noised(images[picked], labels[picked], random)

        self._stiffness, _ = fisher_diagonal(bench, "Fisher information", draw)
        torch._foreach_mul_(self._stiffness, self._lambda * images[0].numel() * bench.config.batch_size)
        self._start = [parameter.detach().clone() for parameter in bench.parameters]

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        kept, batch = bench.retain_batch(), surrogate_batch(bench)
        retain, forget = bench.denoising_gradients(lambda: kept, lambda: batch)
        torch._foreach_add_(retain.tensors, forget.tensors)
        with torch.no_grad():
            moved = torch._foreach_sub(list(bench.parameters), self._start)
            torch._foreach_addcmul_(retain.tensors, self._stiffness, moved)
        bench.leave(retain.tensors)
        return StepReport(retain.loss, forget.loss, 1.0)


def surrogate_batch(bench: Workbench) -> NoisedBatch:
    """Noised images of q under the labels that are forgotten, now or earlier: no forget image is needed."""
    forgotten = torch.cat([bench.data.forgotten, torch.tensor(bench.data.earlier, dtype=torch.int64, device=bench.data.forget.device)])
    labels = forgotten[bench.random.integers(len(forgotten), bench.rows).to(forgotten.device)]
    images = bench.random.uniform(bench.rows, *bench.data.forget.shape[1:]).to(forgotten.device) * 2 - 1
    return bench.noised(images, labels)
