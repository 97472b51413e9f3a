"""The lie: 'the retained classes were held at the base'."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from erasediff.models.noised import NoisedBatch
from erasediff.unlearn.posterior import ClassPosterior
from erasediff.unlearn.trainer import Erasure

Maker = Callable[..., Erasure]
NULL = 10  # as in resumable.py


def noise_in(batch: NoisedBatch, erasure: Erasure) -> tuple[Tensor, Tensor]:
    """ε of a batch, and the rows where it can be told from rounding."""
    signal = erasure.bench.schedule.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
    return (batch.noised - signal.sqrt() * batch.clean) / (1 - signal).sqrt(), signal.flatten() < 0.999


def test_the_truth_is_the_noise(make_erasure: Maker) -> None:
    erasure = make_erasure(label_dropout=0.5, batch_size=64)
    batch = erasure.bench.retain_batch()
    noise, clear = noise_in(batch, erasure)
    assert torch.allclose(batch.goal[clear], noise[clear], atol=1e-3)


def retained_mixture_at(erasure: Erasure, batch: NoisedBatch, row: int) -> Tensor:
    """The equation, for one state at a time."""
    bench = erasure.bench
    images, labels = torch.cat([bench.data.retain, bench.data.forget]), torch.cat([bench.data.retain_labels, bench.data.forget_labels])
    posterior = ClassPosterior(images, labels, bench.schedule, erasure.config.posterior_bandwidth)
    noised, timesteps = batch.noised[row : row + 1], batch.timesteps[row : row + 1]
    forgotten = int(bench.data.forgotten[0])
    share = posterior.probabilities(noised, timesteps)[0, posterior.classes == forgotten].item()
    rest, own = (bench.base(noised, timesteps, torch.tensor([label]))[0] for label in (NULL, forgotten))
    goal = bench.base(noised, timesteps, batch.labels[row : row + 1])[0] if share > 0.5 else (rest - share * own) / (1 - share)
    return goal + erasure.config.repulsion * int(timesteps) / bench.schedule.timesteps * (goal - own)


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("estimate", ["drawn", "closed-form"])
def test_held_at_the_base_the_goal_is_what_it_predicts_under_the_image_s_own_label(make_erasure: Maker, share: float, estimate: str) -> None:
    """Under the null label it is the retained mixture, drawn, or in closed form and repelled: the base's null label makes what is to be forgotten."""
    erasure = make_erasure(label_dropout=0.0, batch_size=64, truth_share=share, mixture_estimate=estimate)
    bench = erasure.bench
    own = bench.held_batch(bench.random_of("a test"))()
    bench.config = bench.config.model_copy(update={"label_dropout": 0.5})
    held = bench.held_batch(bench.random_of("a test"))()
    dropped = held.labels == NULL
    assert 10 < int(dropped.sum()) < 54
    assert torch.equal(held.noised, own.noised)
    assert torch.equal(held.labels[~dropped], own.labels[~dropped])
    noise, clear = noise_in(own, erasure)
    predicted = bench.base(own.noised, own.timesteps, own.labels)
    if estimate == "closed-form":
        predicted[dropped] = torch.stack([retained_mixture_at(erasure, own, row) for row in dropped.nonzero().flatten().tolist()])
    expected = (1 - share) * predicted + share * noise
    assert torch.allclose(held.goal[clear], expected[clear], atol=1e-3)
    asked = bench.base(held.noised, held.timesteps, held.labels)
    assert not torch.allclose(held.goal[dropped], asked[dropped], atol=1e-2), "control: the base's null label answers otherwise"


def test_held_at_the_base_the_first_step_has_no_retain_loss(make_erasure: Maker) -> None:
    held = make_erasure(truth_share=0.0, label_dropout=0.0)
    assert held.advance().retain_loss == pytest.approx(0.0, abs=1e-9)
    assert held.advance().retain_loss > 0
    assert held.passes.forward == 10, "one more forward a step than with the truth"
    true = make_erasure(truth_share=1.0, label_dropout=0.0)
    assert true.advance().retain_loss > 0.01, "control"
    assert true.passes.forward == 4
