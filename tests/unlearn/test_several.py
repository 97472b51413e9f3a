"""The lie: 'both classes were forgotten', while only the first was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

from erasediff.errors import BadInput
from erasediff.unlearn.methods import METHODS
from erasediff.unlearn.objective import always, relabelled, repelled
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.trainer import Erasure, run

Maker = Callable[..., Erasure]


@pytest.fixture
def both(make_erasure: Maker, program) -> Callable[..., Erasure]:
    return lambda **settings: make_erasure(data=program.make_data(earlier=(7,), forget=(2, 4)), **settings)


def test_every_label_to_forget_is_in_the_forget_batch_with_its_own_images(both, program) -> None:
    erasure, data = both(batch_size=400), program.make_data(earlier=(7,), forget=(2, 4))
    batch = erasure.bench.visited_batch()
    own, visited = batch.labels[::2], batch.labels[1::2]
    assert set(own.tolist()) == {2, 4}
    assert chisquare(torch.bincount(own)[[2, 4]].numpy()).pvalue > 1e-4
    nearest = torch.cdist(batch.clean[::2].flatten(1), data.forget.flatten(1)).min(1)
    assert float(nearest.values.max()) < 0.01, "up to the rounding of cdist"
    assert torch.equal(data.forget_labels[nearest.indices], own)
    assert set(visited.tolist()) == {2, 4, 7}
    assert int((visited == 7).sum()) == 100, "half of what the sampler visits is for what was forgotten earlier"


def test_the_retain_batch_and_the_targets_know_none_of_them(both) -> None:
    erasure = both(batch_size=400, mixture_estimate="drawn", repulsion=0.0)
    assert not {2, 4, 7} & set(erasure.bench.retain_batch().labels.tolist())
    asked: set[int] = set()

    def listening(noised: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.update(labels.tolist())
        return noised

    erasure.bench.target(erasure.bench.visited_batch(), listening, Randomness(0))
    assert asked == set(range(10)) - {2, 4, 7}


def test_a_target_is_repelled_from_the_sample_s_own_label(both) -> None:
    """A label forgotten earlier means nothing to the base: such samples are pushed away from one that it still knows."""
    batch, asked = both(batch_size=40).bench.visited_batch(), []

    def base(noised: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append(labels)
        return noised

    repelled(relabelled(always(0)), base, torch.tensor([2, 4]), lambda t: 1.0)(batch, lambda x, t, c: x, Randomness(0))
    known = batch.labels != 7
    assert torch.equal(asked[0][known], batch.labels[known])
    assert set(asked[0][~known].tolist()) <= {2, 4}


@pytest.mark.parametrize("settings", [{}, {"mixture_estimate": "drawn"}, {"target": "relabel"}, {"target": "anchor"}])
def test_an_erasure_of_both_runs_to_its_end(tmp_path: Path, both, settings: dict[str, object]) -> None:
    result = run(both(steps=3, **settings), tmp_path / "c", "0" * 64, lambda _: None)
    assert result.steps == 3
    assert all(torch.isfinite(curve).all() for curve in result.curves.values())


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_would_bring_the_earlier_label_back_is_refused(make_erasure: Maker, method: str) -> None:
    """It trains on nothing that holds the earlier label on its target, so it may not run where something was forgotten before."""
    make_erasure(method=method)
    if METHODS[method].keeps_earlier:
        erasure = make_erasure(method=method, earlier=(7,))
        erasure.advance()
        return
    with pytest.raises(BadInput, match=rf"^erase.method '{method}' does not keep earlier erasures forgotten: choose one of .*\.$"):
        make_erasure(method=method, earlier=(7,))
