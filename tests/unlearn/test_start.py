"""The lies: 'it began with the null label's embedding', 'the retained classes were held at the base'."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.unlearn.methods.erasediff import start_from_null_label
from erasediff.unlearn.trainer import Erasure

Maker = Callable[..., Erasure]
FORGET, NULL = 4, 10  # as in resumable.py


def test_the_forgotten_label_begins_as_the_null_label(make_erasure: Maker) -> None:
    """Its row of the table and no other weight; the average begins there too, and the teacher stays the base."""
    base, started = make_erasure(), make_erasure(start="null-label")
    rows = started.model.class_embedding.weight
    assert torch.equal(rows[FORGET], rows[NULL])
    assert torch.equal(started.ema.model.class_embedding.weight[FORGET], rows[NULL])
    others = [c for c in range(11) if c != FORGET]
    assert torch.equal(rows[others], base.model.class_embedding.weight[others])
    assert not torch.equal(base.model.class_embedding.weight[FORGET], rows[NULL]), "control: the base's own row is another"
    assert torch.equal(started.bench.base.unet.class_embedding.weight, base.model.class_embedding.weight)
    changed = [name for (name, a), b in zip(base.model.named_parameters(), started.model.parameters(), strict=True) if not torch.equal(a, b)]
    assert changed == ["class_embedding.weight"]


def test_a_model_without_a_table_of_classes_cannot_start_there(make_erasure: Maker) -> None:
    bench = make_erasure().bench
    bench.model = torch.nn.Linear(1, 1)
    with pytest.raises(BadInput, match=r"^erase.start 'null-label' needs a model with an embedding a class: .*\.$"):
        start_from_null_label(bench)


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
