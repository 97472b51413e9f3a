"""Attacks that first train: on retained images alone, on a few forgotten ones, or an embedding and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erasediff.evaluate.attacks.embeddings import with_conditions
from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.family import Model
from erasediff.models.noised import denoising_loss
from erasediff.models.training import TrainingSet, train_base, train_on
from erasediff.progress import progress
from erasediff.records.attacks import Recovery
from erasediff.records.config import RunConfig

_BATCH, _DROPOUT = 64, 0.1

Share = Callable[[Model], float]


@dataclass(frozen=True)
class Budget:
    """What an attacker spends: steps, and the rate of Adam."""

    steps: int
    learning_rate: float


def trained_on(model: Model, images: Tensor, labels: Tensor, budget: Budget, device: torch.device, seed: int, what: str) -> Model:
    """A copy of a model after some training on images ``uint8 [N,H,W,C]``, some of them shown under the null label.

    Args:
        model: left as it is.
        images: what the copy is trained on.
        labels: theirs, ``int64 [N]``.
        budget: how long.
        device: where.
        seed: of the batches and their noise.
        what: what the progress bar says.
    """
    moved, data = model.copied(device), TrainingSet(model.encode(images), labels, model.null_row, _DROPOUT)
    with progress(what, budget.steps) as done:
        for step in itertools.islice(train_on(moved, data, _BATCH, budget.learning_rate, seed), budget.steps):
            done(step)
    return moved


def inverted(suspect: Suspect, images: Tensor, budget: Budget) -> Probe:
    """The embedding that explains a few forgotten images best, the network frozen (textual inversion, Gal et al. 2208.01618).

    It starts from the null row, or from the mean of all rows: an attacker who has images of the class and the model needs no label.

    Args:
        suspect: whose network is asked.
        images: of the forgotten class, ``uint8 [N,H,W,C]``, none of which the model was trained on.
        budget: steps on that one row.
    """
    model, (condition,) = with_conditions(suspect.model, _unasked(suspect.model))
    model.to(suspect.device).network.requires_grad_(False)
    model, free = model.freeing_last_row()
    optimizer, generator = torch.optim.Adam(free, lr=budget.learning_rate), torch.Generator().manual_seed(suspect.seed)
    data = TrainingSet(model.encode(images), torch.full((len(images),), condition), model.null_row, 0.0)
    with progress("F5: inverting the embedding", budget.steps) as done:
        for step in range(budget.steps):
            torch.autograd.backward(denoising_loss(model.denoiser, data.draw(model.schedule, _BATCH, generator, suspect.device)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done(step + 1)
    return suspect.probe("inverted embedding", condition, model=model)


def relearned(suspect: Suspect, images: Tensor, learning_rate: float, looks: Sequence[int], share: Share, base_share: float, seed: int) -> Recovery:
    """Fine-tune on a few forgotten images and look now and then how much of the class is back.

    Args:
        suspect: the model; it is left as it is.
        images: the few, ``uint8 [N,H,W,C]``.
        learning_rate: of Adam, on all weights.
        looks: steps after which to look, rising; the last is the budget.
        share: the share of samples of a model's label that is detected.
        base_share: that of the base; half of it ends the attack.
        seed: of the noise.
    """
    copied = suspect.model.copied(suspect.device)
    data = TrainingSet(copied.encode(images), torch.full((len(images),), suspect.label), copied.null_row, 0.0)
    curve: list[tuple[int, float]] = []
    for step in train_on(copied, data, 4 * len(images), learning_rate, seed):
        if step in looks:
            curve.append((step, share(copied)))
        if step >= looks[-1] or (curve and curve[-1][1] >= base_share / 2):
            break
    return Recovery(curve=tuple(curve), steps_to_half=next((step for step, found in curve if found >= base_share / 2), None))


def trained_without(base: Model, images: Tensor, labels: Tensor, label: int, config: RunConfig, device: torch.device) -> Model:
    """A base trained anew, by the configuration's recipe, on images of the other classes.

    Asked for the class it answers as if asked for nothing: a label that was never trained would be noise, and harder to ask.

    Args:
        base: whose architecture and autoencoder it has.
        images: of all classes that the base may know, ``uint8 [N,H,W,C]``.
        labels: theirs, ``int64 [N]``.
        label: the class to leave out.
        config: a run's configuration with a ``base_training`` section.
        device: where to train.
    """
    assert config.base_training is not None, "the caller checks that the config trains a base"
    stays = labels != label
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        fresh = base.with_network(base.fresh())
    with progress("training a model without the class", config.base_training.steps) as done:
        model = train_base(fresh, base.encode(images[stays]), labels[stays], config, device, lambda step, loss: done(step))
    table = model.rows()
    table[label] = _unasked(model)[0]
    return model.with_rows(table)


def _unasked(model: Model) -> Tensor:
    """The row ``[1,…]`` that asks for nothing: the null row, or the mean of all where there is none."""
    table = model.rows()
    return table.mean(0, keepdim=True) if model.null_row is None else table[[model.null_row]]
