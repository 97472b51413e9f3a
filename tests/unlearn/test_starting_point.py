"""The decay towards the starting point: L2-SP, decoupled from Adam."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from erasediff.records.config import EraseConfig
from erasediff.unlearn.trainer import Erasure

Maker = Callable[..., Erasure]
RATE, DECAY = 0.01, 30.0


def moved(erasure: Erasure) -> tuple[Tensor, Tensor]:
    """The weights before and after one step, flat."""
    before = torch.cat([p.detach().flatten().clone() for p in erasure.bench.parameters])
    erasure.advance()
    return before, torch.cat([p.detach().flatten() for p in erasure.bench.parameters])


@pytest.mark.parametrize("method", ["erasediff", "finetune", "retrain"])
def test_a_step_ends_nearer_to_where_it_began_by_the_rate_times_the_decay(make_erasure: Maker, method: str) -> None:
    settings = {"method": method, "learning_rate": RATE, "decay_fraction": 0.0}
    start, free = moved(make_erasure(starting_point_decay=0.0, **settings))
    again, held = moved(make_erasure(starting_point_decay=DECAY, **settings))
    assert torch.equal(start, again)
    assert torch.allclose(held - start, (1 - RATE * DECAY) * (free - start), atol=1e-7)
    assert not torch.allclose(held, free, atol=1e-4)  # control: the decay is felt


def test_retrain_is_held_at_its_own_first_weights_and_not_at_the_base_s(make_erasure: Maker) -> None:
    erasure = make_erasure(method="retrain", learning_rate=RATE, starting_point_decay=0.99 / RATE, decay_fraction=0.0)
    base = [p.detach().clone() for p in make_erasure().bench.parameters]
    first, last = moved(erasure)
    apart = (first - torch.cat([p.flatten() for p in base])).norm()
    assert (last - first).norm() < 0.01 * apart


def test_where_a_run_starts_from_the_base_the_starting_point_costs_no_memory(make_erasure: Maker) -> None:
    def shared(erasure: Erasure) -> int:
        frozen = {p.data_ptr() for p in erasure.bench.base.unet.parameters()}  # type: ignore[attr-defined]
        return sum(p.data_ptr() in frozen for p in erasure._starting_point)

    erasure, fresh = make_erasure(), make_erasure(method="retrain")
    assert shared(erasure) == len(erasure._starting_point)
    assert shared(fresh) < len(fresh._starting_point)  # control: new weights need a copy; those that start at 0 or 1 are shared


def test_a_decay_that_no_step_could_leave_is_refused() -> None:
    with pytest.raises(ValidationError, match="lower one of them"):
        EraseConfig(learning_rate=0.1, starting_point_decay=10)
    EraseConfig(learning_rate=0.1, starting_point_decay=9)
