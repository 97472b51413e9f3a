"""Attacks that first train: on retained images alone, on a few forgotten ones, or an embedding and nothing else."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from erasediff.evaluate.attacks.embeddings import embedding_of, with_conditions
from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.denoiser import UNetDenoiser
from erasediff.models.noised import denoising_loss
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.models.training import TrainingSet, train_base, train_on
from erasediff.progress import progress
from erasediff.records.attacks import Recovery
from erasediff.records.config import RunConfig

_BATCH, _DROPOUT = 64, 0.1

Share = Callable[[ClassConditionalPipeline], float]


@dataclass(frozen=True)
class Budget:
    """What an attacker spends: steps, and the rate of Adam."""

    steps: int
    learning_rate: float


def _copied(model: ClassConditionalPipeline, device: torch.device) -> ClassConditionalPipeline:
    return ClassConditionalPipeline(copy.deepcopy(model.unet).to(device), model.scheduler)


def trained_on(
    model: ClassConditionalPipeline, images: Tensor, labels: Tensor, budget: Budget, device: torch.device, seed: int, what: str
) -> ClassConditionalPipeline:
    """A copy of a model after some training on images ``float32 [N,C,H,W]``, some of them shown under the null label.

    Args:
        model: left as it is.
        images: what the copy is trained on.
        labels: theirs, ``int64 [N]``.
        budget: how long.
        device: where.
        seed: of the batches and their noise.
        what: what the progress bar says.
    """
    moved, data = _copied(model, device), TrainingSet(images, labels, model.classes, _DROPOUT)
    with progress(what, budget.steps) as done:
        for step in itertools.islice(train_on(moved.unet, model.schedule, data, _BATCH, budget.learning_rate, seed), budget.steps):
            done(step)
    return moved


def inverted(suspect: Suspect, images: Tensor, budget: Budget) -> Probe:
    """The embedding that explains a few forgotten images best, the network frozen (textual inversion, Gal et al. 2208.01618).

    It starts from the null label's row: an attacker who has images of the class and the model needs no label.

    Args:
        suspect: whose network is asked.
        images: of the forgotten class, ``float32 [N,C,H,W]``, none of which the model was trained on.
        budget: steps on that one row.
    """
    model, (condition,) = with_conditions(suspect.model, embedding_of(suspect.model)[[suspect.model.classes]])
    unet = model.unet.to(suspect.device).requires_grad_(False)
    unet.class_embedding = free = FreeLastRow(unet.class_embedding.weight)
    optimizer, generator = torch.optim.Adam([free.row], lr=budget.learning_rate), torch.Generator().manual_seed(suspect.seed)
    data = TrainingSet(images, torch.full((len(images),), condition), model.classes, 0.0)
    with progress("F5: inverting the embedding", budget.steps) as done:
        for step in range(budget.steps):
            torch.autograd.backward(denoising_loss(UNetDenoiser(unet), data.draw(model.schedule, _BATCH, generator, suspect.device)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done(step + 1)
    return suspect.probe("inverted embedding", condition, model=model)


class FreeLastRow(nn.Module):
    """A table of embeddings ``[K,E]`` whose last row alone is trained."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table.detach().clone())
        self.row = nn.Parameter(table[-1].detach().clone())

    def forward(self, labels: Tensor) -> Tensor:
        """Rows ``[...,E]`` of labels ``[...]``."""
        return torch.where((labels == len(self.table) - 1).unsqueeze(-1), self.row, self.table[labels])


def relearned(suspect: Suspect, images: Tensor, learning_rate: float, looks: Sequence[int], share: Share, base_share: float, seed: int) -> Recovery:
    """Fine-tune on a few forgotten images and look now and then how much of the class is back.

    Args:
        suspect: the model; it is left as it is.
        images: the few, ``float32 [N,C,H,W]``.
        learning_rate: of Adam, on all weights.
        looks: steps after which to look, rising; the last is the budget.
        share: the share of samples of a model's label that is detected.
        base_share: that of the base; half of it ends the attack.
        seed: of the noise.
    """
    copied = _copied(suspect.model, suspect.device)
    data = TrainingSet(images, torch.full((len(images),), suspect.label), suspect.model.classes, 0.0)
    curve: list[tuple[int, float]] = []
    for step in train_on(copied.unet, copied.schedule, data, 4 * len(images), learning_rate, seed):
        if step in looks:
            curve.append((step, share(copied)))
        if step >= looks[-1] or (curve and curve[-1][1] >= base_share / 2):
            break
    return Recovery(curve=tuple(curve), steps_to_half=next((step for step, found in curve if found >= base_share / 2), None))


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
