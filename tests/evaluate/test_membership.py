"""The lie: 'it was never trained on', said by an attack that could not have told, or on controls that were trained on too."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from erasediff.evaluate.membership import ATTACKS, Target, membership, scores
from erasediff.models.process import NoiseSchedule, squared_cosine

CPU = torch.device("cpu")
SCHEDULE = squared_cosine(1000)


class Memory:
    """A perfect denoiser of a set of images: the posterior mean of a kernel density over them. What it was 'trained on' is known."""

    def __init__(self, images: Tensor, schedule: NoiseSchedule, bandwidth: float = 0.1) -> None:
        self._images, self._schedule, self._bandwidth = images.flatten(1), schedule, bandwidth

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        signal = self._schedule.alphas_cumprod[timesteps].view(-1, 1)
        spread = 1 - signal + signal * self._bandwidth**2
        flat = noised.flatten(1)
        gaps = torch.cdist(flat / signal.sqrt(), self._images).square() * signal
        weights = (-gaps / (2 * spread)).softmax(1)
        score = (signal.sqrt() * (weights @ self._images) - flat) / spread
        epsilon = (-(1 - signal).sqrt() * score).view_as(noised)
        if self._schedule.prediction_type == "epsilon":
            return epsilon
        wide = signal.view(-1, 1, 1, 1)
        return (epsilon - (1 - wide).sqrt() * noised) / wide.sqrt()


def images(seed: int, n: int) -> Tensor:
    """Eight smooth patterns with noise of their own: images of one kind."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.linspace(-1, 1, 8)
    phase = torch.rand(n, 1, 1, 1, generator=generator) * 2 * math.pi
    return (0.7 * torch.sin(3 * rows.view(1, 1, 8, 1) + phase) + 0.3 * torch.randn(n, 1, 8, 8, generator=generator)).clamp(-1, 1)


MEMBERS, CONTROLS = images(0, 120), images(1, 120)


def target(known: Tensor, prediction: str = "epsilon") -> Target:
    schedule = NoiseSchedule(SCHEDULE.alphas_cumprod, prediction)  # type: ignore[arg-type]
    return Target(Memory(known, schedule), schedule, CPU)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_tells_what_was_learnt_by_heart(name: str, prediction: str) -> None:
    """High for members, of a model that knows them and nothing else; the control is a model that knows both sets alike."""
    labels = torch.zeros(120, dtype=torch.int64)
    overfitted, fair = target(MEMBERS, prediction), target(torch.cat([MEMBERS, CONTROLS]), prediction)
    found = membership(overfitted, MEMBERS, CONTROLS, 0, 0.05)[name]
    assert found.lower > 0.8
    knows_both = membership(fair, MEMBERS, CONTROLS, 0, 0.05)[name]
    assert abs(knows_both.auc - 0.5) < 0.15 < found.auc - 0.5
    assert scores(ATTACKS[name], overfitted, MEMBERS, labels, 0).shape == (120,)


def test_images_that_were_trained_on_are_no_controls() -> None:
    """The peers' evaluators take retained training images: then a model that knows all of them looks as if it knew none."""
    both = target(torch.cat([MEMBERS, CONTROLS]))
    assert membership(both, MEMBERS, CONTROLS, 0, 0.05)["loss"].lower < 0.55
    assert membership(both, MEMBERS, images(2, 120), 0, 0.05)["loss"].lower > 0.8, "control: held-out images show it"


@pytest.mark.parametrize("name", ATTACKS)
def test_scores_are_a_function_of_their_seed(name: str) -> None:
    labels = torch.zeros(120, dtype=torch.int64)
    first, again = (scores(ATTACKS[name], target(MEMBERS), MEMBERS, labels, 0) for _ in range(2))
    assert (first == again).all()
