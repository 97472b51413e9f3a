"""The lie: 'the retained classes were held at the base'."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from erasediff.unlearn.trainer import Erasure

Maker = Callable[..., Erasure]
NULL = 10  # as in resumable.py


@pytest.mark.parametrize("goal", ["truth", "base"])
def test_the_retain_goal_is_the_noise_or_what_the_base_predicts(make_erasure: Maker, goal: str) -> None:
    """Under the null label it is always the noise: the base's null label makes what is to be forgotten."""
    erasure = make_erasure(retain_goal=goal, label_dropout=0.5, batch_size=64)
    batch = erasure.method._retain_batch(erasure.bench)
    kept: Tensor = erasure.bench.base(batch.noised, batch.timesteps, batch.labels)
    signal = erasure.bench.schedule.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
    noise = (batch.noised - signal.sqrt() * batch.clean) / (1 - signal).sqrt()
    dropped = batch.labels == NULL
    assert 10 < int(dropped.sum()) < 54
    clear = signal.flatten() < 0.999  # where noise can be told from rounding
    assert torch.allclose(batch.goal[dropped & clear], noise[dropped & clear], atol=1e-3)
    wanted = noise if goal == "truth" else kept
    assert torch.allclose(batch.goal[~dropped & clear], wanted[~dropped & clear], atol=1e-3)
    assert not torch.allclose(noise[~dropped], kept[~dropped], atol=1e-2), "control: the two goals differ"


def test_held_at_the_base_the_first_step_has_no_retain_loss(make_erasure: Maker) -> None:
    held = make_erasure(retain_goal="base", label_dropout=0.0)
    assert held.advance().retain_loss == pytest.approx(0.0, abs=1e-9)
    assert held.advance().retain_loss > 0
    assert held.passes.forward == 10, "one more forward a step than with the truth"
