"""The lie: 'the model was taught the retained classes', while the target or the batch said something else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.noised import NoisedBatch, denoising_loss
from erasediff.models.process import NoiseSchedule
from erasediff.records.config import EraseConfig
from erasediff.unlearn.objective import always, relabelled, repelled, rising, uniform_noise, uniform_over
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.targets import anchor_label
from erasediff.unlearn.trainer import Erasure

Maker = Callable[..., Erasure]
FORGET, NULL = 4, 10  # as in resumable.py


def batch_of(count: int) -> NoisedBatch:
    zeros = torch.zeros(count, dtype=torch.int64)
    images = torch.randn(3, count, 1, 2, 2)
    return NoisedBatch(*images, zeros, torch.full((count,), FORGET))


def by_label(noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
    """A denoiser that says which label it was asked for."""
    return torch.zeros_like(noised) + labels.view(-1, 1, 1, 1)


def test_labels_are_dropped_on_the_retain_pass_alone(make_erasure: Maker) -> None:
    """Dropping them on the forget pass lets the null embedding, which guidance needs, drift."""
    erasure = make_erasure(label_dropout=0.5, batch_size=400)
    dropped = float((erasure.bench.retain_batch().labels == NULL).double().mean())
    assert dropped == pytest.approx(0.5, abs=0.1)
    assert set(erasure.bench.visited_batch().labels.tolist()) == {FORGET}
    assert NULL not in make_erasure(label_dropout=0.0, batch_size=400).bench.retain_batch().labels, "control"


def test_the_retain_batch_holds_retained_labels_with_their_own_images(make_erasure: Maker, program) -> None:
    erasure, data = make_erasure(label_dropout=0.0, batch_size=200), program.make_data()
    batch = erasure.bench.retain_batch()
    assert set(batch.labels.tolist()) == set(range(10)) - {FORGET}
    clean = _clean(erasure, batch)
    nearest = torch.cdist(clean, data.retain.flatten(1)).min(1)
    sure = erasure.bench.schedule.alphas_cumprod[batch.timesteps] > 0.01
    assert torch.equal(data.retain_labels[nearest.indices][sure], batch.labels[sure])


def _clean(erasure: Erasure, batch: NoisedBatch) -> Tensor:
    signal = erasure.bench.schedule.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
    return ((batch.noised - (1 - signal).sqrt() * batch.goal) / signal.sqrt()).flatten(1)


@pytest.mark.parametrize("visited", [0.0, 0.25, 0.5])
def test_the_forget_batch_holds_the_forgotten_label_over_both_kinds_of_image(make_erasure: Maker, program, visited: float) -> None:
    """States of retained images under the forgotten label: where the sampler goes after the erasure."""
    erasure, data = make_erasure(visited_share=visited, batch_size=200), program.make_data()
    batch = erasure.bench.visited_batch()
    assert set(batch.labels.tolist()) == {FORGET}
    clean = _clean(erasure, batch)
    is_forget = torch.cdist(clean, data.forget.flatten(1)).min(1).values < torch.cdist(clean, data.retain.flatten(1)).min(1).values
    sure = erasure.bench.schedule.alphas_cumprod[batch.timesteps] > 0.01
    own = torch.tensor([(row + 1) * visited // 1 == row * visited // 1 for row in range(200)])
    assert torch.equal(is_forget[sure], own[sure])


def test_labels_forgotten_earlier_are_kept_on_the_target(make_erasure: Maker) -> None:
    """A second erasure that brings the first class back would break a promise already made."""
    erasure = make_erasure(earlier=(1, 7), batch_size=400)
    labels = erasure.bench.visited_batch().labels
    counts = torch.bincount(labels, minlength=10)
    assert set(labels.tolist()) == {FORGET, 1, 7}
    assert int(counts[1] + counts[7]) == 100, "half of the visited half"
    assert chisquare(counts[[1, 7]].numpy()).pvalue > 1e-4
    assert set(labels[::2].tolist()) == {FORGET}, "images of the forgotten class have its label only"
    assert not {1, 7} & set(erasure.bench.retain_batch().labels.tolist())


def test_the_uniform_draw_is_uniform_over_the_retained_labels() -> None:
    """Per sample, never the forgotten label; the released code draws one label a batch, from 1..9 whatever is forgotten."""
    retained = torch.tensor([c for c in range(10) if c != FORGET])
    drawn = uniform_over(retained)(batch_of(9000), Randomness(0))
    counts = torch.bincount(drawn, minlength=10).numpy()
    assert counts[FORGET] == 0
    assert chisquare(counts[retained.numpy()]).pvalue > 1e-4
    skewed = uniform_over(torch.tensor([0, 0, 1, 2, 3, 5, 6, 7, 8, 9]))(batch_of(9000), Randomness(0))
    assert chisquare(torch.bincount(skewed, minlength=10).numpy()[retained.numpy()]).pvalue < 1e-4, "control"


@pytest.mark.parametrize("target", ["relabel", "anchor", "mixture"])
def test_the_teacher_is_never_asked_for_the_forgotten_label(make_erasure: Maker, target: str) -> None:
    erasure = make_erasure(target=target, mixture_estimate="drawn", repulsion=0.0, batch_size=400, earlier=(1,))
    answers = erasure.bench.target(erasure.bench.visited_batch(), by_label, Randomness(0)).unique().tolist()
    assert not {FORGET, 1, NULL} & {int(a) for a in answers}
    assert (len(answers) == 1) == (target == "anchor")


@pytest.mark.parametrize(("anchor", "forget", "wanted"), [(None, 4, 5), (None, 9, 0), (2, 4, 2)])
def test_the_anchor_is_the_next_retained_label_or_the_configured_one(program, anchor: int | None, forget: int, wanted: int) -> None:
    data = program.ErasureData(torch.zeros(1), torch.tensor([forget]), torch.zeros(9), torch.tensor([c for c in range(10) if c != forget]), NULL)
    assert anchor_label(EraseConfig(target="anchor", anchor=anchor), data) == wanted


@pytest.mark.parametrize("anchor", [FORGET, 1, NULL])
def test_an_anchor_that_is_not_retained_is_refused(make_erasure: Maker, anchor: int) -> None:
    """An anchor on the forgotten class would teach the model what it knows already."""
    with pytest.raises(BadInput, match=rf"^anchor {anchor} is not a retained label: choose one of 0, 2, 3, .*\.$"):
        make_erasure(target="anchor", anchor=anchor, earlier=(1,))


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_a_repelled_target_is_pushed_away_from_the_base(strength: float) -> None:
    """eps_f + rho (eps_f - eps_base(x | f)) = 7 + rho (7 - 4)."""
    target = repelled(relabelled(always(7)), by_label, torch.tensor([FORGET]), lambda t: torch.tensor(strength))
    found = target(batch_of(3), by_label, Randomness(0))
    assert torch.equal(found, torch.full((3, 1, 2, 2), 7 + strength * 3))


def test_repulsion_grows_with_the_noise(schedule: NoiseSchedule) -> None:
    """rho(t) = rho t / T: nothing at t = 0, half of it in the middle."""
    steps = schedule.timesteps
    assert rising(0.8, schedule)(torch.tensor([0, steps // 2, steps - 1])).flatten().tolist() == pytest.approx([0, 0.4, 0.8], abs=1 / steps)


def test_the_noise_target_is_uniform_noise_that_asks_nobody(schedule: NoiseSchedule) -> None:
    def silent(*_: Tensor) -> Tensor:
        raise AssertionError("the teacher was asked")

    drawn = uniform_noise(schedule)(batch_of(5000), silent, Randomness(0))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert chisquare(torch.histc(drawn, 10, 0, 1).numpy()).pvalue > 1e-4


def test_the_losses_are_mean_squares_against_their_targets() -> None:
    batch = batch_of(3)
    assert denoising_loss(by_label, batch).item() == pytest.approx((FORGET - batch.goal).square().mean().item())
    assert denoising_loss(by_label, batch.aimed_at(torch.full((3, 1, 2, 2), 6.0))).item() == pytest.approx(4.0)
