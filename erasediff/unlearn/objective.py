"""The two losses, and the targets of the forget loss.

    retain  L_r(θ) = E ‖ε - ε_θ(x_t | c)‖²    over the retain set: the ordinary denoising loss
    forget  L_f(θ) = E ‖ε_f - ε_θ(x_t | c)‖²  over the forget set: minimised, towards a target ε_f other than the true noise

Source: Wu et al., arXiv 2401.05779, eq. 3 and 4. Both are :func:`erasediff.models.noised.denoising_loss`; in a forget batch a target
replaces the goal:

    relabel   ε_f = ε_T(x_t | c_m), c_m uniform over the retained labels (the paper's)
    anchor    ε_f = ε_T(x_t | c_m), c_m one fixed label that is not forgotten
    mixture   the score of the retained mixture, where the uniform draw gives that of a geometric mean (docs/algorithm.md):
              ε_f = ε_T(x_t | c_m), c_m drawn from p(c | x_t, c retained), an unbiased estimate of it; or in closed form
              ε_f = (ε_T(x_t | ∅) - Σ_f p(f | x_t)·ε_T(x_t | f)) / (1 - Σ_f p(f | x_t)) where that sum is small
    noise     ε_f ~ U[0,1) (the paper's)

T is the teacher: the frozen base, or the current weights without a gradient. For a model that predicts v, read v for ε.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from erasediff.models.denoiser import Denoiser
from erasediff.models.noised import NoisedBatch
from erasediff.models.process import NoiseSchedule
from erasediff.unlearn.posterior import ClassPosterior
from erasediff.unlearn.randomness import Randomness

B = TypeVar("B")


def chunks(batch: B, count: int) -> Iterator[B]:
    """A batch, any dataclass of tensors ``[B,…]``, in ``count`` parts of equal size."""
    if count == 1:
        yield batch
        return
    named: Any = {field.name: getattr(batch, field.name) for field in fields(batch)}  # type: ignore[arg-type]
    for parts in zip(*(value.chunk(count) for value in named.values()), strict=True):
        yield type(batch)(**dict(zip(named, parts, strict=True)))


Target = Callable[[NoisedBatch, Denoiser, Randomness], Tensor]
"""ε_f ``[B,C,H,W]`` for a forget batch, given the teacher; it carries no gradient."""

LabelDraw = Callable[[NoisedBatch, Randomness], Tensor]

Repulsion = Callable[[Tensor], Tensor]
"""ρ(t) ``[B,1,1,1]`` for timesteps ``[B]``: how far a target is pushed away from the forgotten label."""


def relabelled(draw: LabelDraw) -> Target:
    """The teacher's prediction under another label, which ``draw`` chooses."""

    @torch.no_grad()
    def target(batch: NoisedBatch, teacher: Denoiser, random: Randomness) -> Tensor:
        return teacher(batch.noised, batch.timesteps, draw(batch, random))

    return target


def uniform_over(labels: Tensor) -> LabelDraw:
    """Draw a label for each sample uniformly from ``labels``."""

    def draw(batch: NoisedBatch, random: Randomness) -> Tensor:
        return labels[random.integers(len(labels), len(batch.labels)).to(labels.device)]

    return draw


def always(label: int) -> LabelDraw:
    """Always the same label."""

    def draw(batch: NoisedBatch, random: Randomness) -> Tensor:
        return torch.full_like(batch.labels, label)

    return draw


def from_posterior(posterior: ClassPosterior) -> LabelDraw:
    """Draw a label for each sample from p(c | x_t)."""

    def draw(batch: NoisedBatch, random: Randomness) -> Tensor:
        return posterior.draw(batch.noised, batch.timesteps, random)

    return draw


def rising(strength: float, schedule: NoiseSchedule) -> Repulsion:
    """ρ(t) = ρ·t/T: the class of an image is decided at much noise; at little noise repulsion would only sharpen it."""
    return lambda timesteps: strength * timesteps.view(-1, 1, 1, 1) / schedule.timesteps


def repelled(target: Target, base: Denoiser, forgotten: Tensor, repulsion: Repulsion) -> Target:
    """Push a target away from what the base predicts for the forgotten label: ε_f + ρ(t)·(ε_f - ε_base(x_t | f)).

    It is guidance with the forgotten label as the negative condition, trained in (cf. Gandikota et al. 2303.07345, eq. 7).
    The base cannot predict a label that it has already forgotten: such samples are pushed away from one in ``forgotten`` instead.
    """

    @torch.no_grad()
    def away(batch: NoisedBatch, teacher: Denoiser, random: Randomness) -> Tensor:
        goal = target(batch, teacher, random)
        return goal + repulsion(batch.timesteps) * (goal - base(batch.noised, batch.timesteps, named_among(forgotten, batch.labels)))

    return away


def named_among(forgotten: Tensor, labels: Tensor) -> Tensor:
    """Labels ``[B]``, with one of ``forgotten`` in turn for each that is not among them."""
    others = forgotten[torch.arange(len(labels), device=forgotten.device) % len(forgotten)]
    return torch.where(torch.isin(labels, forgotten), labels, others)


def uniform_noise(schedule: NoiseSchedule) -> Target:
    """ε_f ~ U[0,1), the paper's second target; it does not use the teacher."""

    def target(batch: NoisedBatch, teacher: Denoiser, random: Randomness) -> Tensor:
        noise = random.uniform(len(batch.noised), *batch.noised.shape[1:]).to(batch.noised.device)
        return schedule.goal(batch.clean, noise, batch.timesteps)

    return target
