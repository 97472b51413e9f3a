"""Was this image trained on? Four attacks that need no training, and what they show of a set of images.

Members are images whose membership is in question, controls are **held-out** images of the same kind: with retained training
images for controls, a model that was never erased would score ideally. Scores are high for what looks like a member.

A model that predicts v is asked for ε: ε = √ā_t·v + √(1-ā_t)·x_t (Salimans and Ho 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.evaluate.statistics import Equivalence, membership_auc
from erasediff.models.denoiser import Denoiser
from erasediff.models.process import NoiseSchedule

Scores = NDArray[np.float64]
_BATCH = 256
_LOSS_SHARES = (0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Target:
    """The model under attack: its denoiser and schedule, and the device it is on."""

    denoiser: Denoiser
    schedule: NoiseSchedule
    device: torch.device

    def noise_in(self, noised: Tensor, timestep: int, labels: Tensor) -> Tensor:
        """ε_θ(x_t | c) ``[B,C,H,W]``."""
        predicted = self.denoiser(noised, torch.full_like(labels, timestep), labels)
        if self.schedule.prediction_type == "epsilon":
            return predicted
        signal = self.signal(timestep)
        return signal.sqrt() * predicted + (1 - signal).sqrt() * noised

    def signal(self, timestep: int) -> Tensor:
        """ā_t."""
        return self.schedule.alphas_cumprod[timestep].to(self.device)

    def moved(self, state: Tensor, predicted: Tensor, source: int, target: int) -> Tensor:
        """A deterministic DDIM step from one timestep to another, forwards or backwards (Song et al. 2021, eq. 12)."""
        before, after = self.signal(source), self.signal(target)
        clean = (state - (1 - before).sqrt() * predicted) / before.sqrt()
        return after.sqrt() * clean + (1 - after).sqrt() * predicted


Attack = Callable[[Target, Tensor, Tensor, torch.Generator], Tensor]
"""Scores ``[B]`` of images ``float32 [B,C,H,W]`` under labels ``[B]``."""


def _square(values: Tensor) -> Tensor:
    return values.square().flatten(1).mean(1)


def loss(target: Target, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Minus the denoising loss at a few timesteps: what was trained on is predicted better (Matsumoto et al. 2302.03262)."""
    found = torch.zeros(len(images), device=target.device)
    for share in _LOSS_SHARES:
        timestep = int(share * target.schedule.timesteps)
        noise = torch.randn(images.shape, generator=generator).to(target.device)
        signal = target.signal(timestep)
        noised = signal.sqrt() * images + (1 - signal).sqrt() * noise
        found -= _square(target.noise_in(noised, timestep, labels) - noise)
    return found / len(_LOSS_SHARES)


def sima(target: Target, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Minus the size of the predicted noise in the image itself: the score is small where much was learnt (SimA, 2509.25003)."""
    return -_square(target.noise_in(images, int(0.05 * target.schedule.timesteps), labels)).sqrt()


def pia(target: Target, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Minus the distance of the noise predicted at 0 from that predicted where it leads to (Kong et al. 2305.18355)."""
    timestep = int(0.2 * target.schedule.timesteps)
    first = target.noise_in(images, 0, labels)
    signal = target.signal(timestep)
    noised = signal.sqrt() * images + (1 - signal).sqrt() * first
    return -(first - target.noise_in(noised, timestep, labels)).abs().pow(4).flatten(1).sum(1).pow(0.25)


def secmi(target: Target, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Minus the error of going a step on and back again along the deterministic path (Duan et al. 2302.01316)."""
    state, last, interval = images, int(0.1 * target.schedule.timesteps), 10
    for timestep in range(0, last, interval):
        state = target.moved(state, target.noise_in(state, timestep, labels), timestep, timestep + interval)
    onwards = target.moved(state, target.noise_in(state, last, labels), last, last + interval)
    back = target.moved(onwards, target.noise_in(onwards, last + interval, labels), last + interval, last)
    return -_square(back - state)


ATTACKS: dict[str, Attack] = {"loss": loss, "SimA": sima, "SecMI": secmi, "PIA": pia}


@torch.no_grad()
def scores(attack: Attack, target: Target, images: Tensor, labels: Tensor, seed: int) -> Scores:
    """An attack's scores ``[N]`` of images ``float32 [N,C,H,W]``; the same seed draws the same noise for members and controls."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        attack(target, rows.to(target.device), asked.to(target.device), generator)
        for rows, asked in zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)
    ]
    found: Scores = torch.cat(parts).double().cpu().numpy()
    return found


def membership(target: Target, members: Tensor, controls: Tensor, label: int, alpha: float, seed: int = 0) -> dict[str, Equivalence]:
    """Every attack's AUC on members against controls of one label, with the interval of two one-sided tests at level α.

    Args:
        target: the model.
        members: images ``float32 [M,C,H,W]`` in -1..1 that the base was trained on.
        controls: held-out images of the same class ``[N,C,H,W]``.
        label: the condition that both are shown under.
        alpha: of each one-sided test.
        seed: of the noise.
    """

    def found(attack: Attack, images: Tensor) -> Scores:
        return scores(attack, target, images, torch.full((len(images),), label), seed)

    asked = {name: partial(found, attack) for name, attack in ATTACKS.items()}
    return {name: membership_auc(of(members), of(controls), alpha) for name, of in asked.items()}
