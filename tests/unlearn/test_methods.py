"""The lie: 'any method can stand behind the seam'. What holds for all of them, found through :data:`METHODS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.records.config import EraseConfig, MethodName
from erasediff.unlearn.checkpoint import load_checkpoint, save_checkpoint
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.methods import METHODS
from erasediff.unlearn.methods.sa import surrogate_batch
from erasediff.unlearn.methods.siss import paired
from erasediff.unlearn.trainer import Erasure
from erasediff.unlearn.workbench import Workbench
from tests.counting import Passes

KEY = "0" * 64
Maker = Callable[..., Erasure]
PASSES = {  # forward and backward passes of a step with target `relabel`, as the docstrings say
    "erasediff": (4, 2),
    "finetune": (1, 1),
    "neggrad": (2, 2),
    "salun": (3, 2),
    "sfron": (2, 2),
    "munba": (3, 2),
    "siss": (1, 2),
    "sa": (2, 2),
    "retrain": (1, 1),
}
every_method = pytest.mark.parametrize("method", METHODS)


def advanced(erasure: Erasure, steps: int) -> Erasure:
    for _ in range(steps):
        erasure.advance()
    return erasure


def state(erasure: Erasure) -> dict[str, Tensor]:
    checkpoint = erasure.checkpoint()
    return checkpoint.tensors | {name: torch.tensor(value) for name, value in checkpoint.numbers.items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_every_name_of_the_config_is_a_method() -> None:
    assert set(METHODS) == set(get_args(MethodName)) == set(PASSES)


@every_method
def test_a_run_is_a_function_of_its_seed(make_erasure: Maker, method: str) -> None:
    """Also of nothing else: the global generator neither matters nor moves, the base stays, the numbers are numbers.

    Red if a prelude or an initialisation draws from torch's own generator.
    """
    first = advanced(make_erasure(method=method, target="relabel"), 2)
    torch.rand(3)
    before = torch.get_rng_state()
    second = make_erasure(method=method, target="relabel")
    base = [value.clone() for value in second.bench.base.unet.state_dict().values()]
    start = make_erasure(method="finetune").model.state_dict()
    advanced(second, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(state(first), state(second))
    assert all(torch.equal(a, b) for a, b in zip(base, second.bench.base.unet.state_dict().values(), strict=True)), "the base is not changed"
    assert not same(second.model.state_dict(), start), "the weights are"
    curves = second.result().curves
    assert all(len(curve) == 2 and torch.isfinite(curve).all() for curve in curves.values())
    assert all(torch.isfinite(value).all() for value in second.model.state_dict().values())
    other = advanced(make_erasure(seed=1, method=method, target="relabel"), 2)
    assert not same(other.model.state_dict(), second.model.state_dict()), "control: another seed goes elsewhere"


@every_method
def test_a_resumed_run_ends_where_the_unbroken_run_ends(tmp_path: Path, make_erasure: Maker, method: str) -> None:
    """From a checkpoint of step 2, through a file: what `prepare` works out is worked out again, and the same.

    Red if a prelude draws from `bench.random`: a fresh run would leave its generator elsewhere than the checkpoint has it,
    which the comparison of states sees; or if `prepare` reads anything that the steps change.
    """
    whole = advanced(make_erasure(method=method, target="relabel"), 2)
    save_checkpoint(tmp_path / "c", whole.checkpoint(), KEY)
    resumed = make_erasure(method=method, target="relabel")
    before = resumed.bench.random.generator.get_state()
    assert torch.equal(before, torch.Generator().manual_seed(0).get_state()), "preparing takes nothing from the steps' numbers"
    resumed.restore(load_checkpoint(tmp_path / "c", KEY))
    assert [resumed.advance() for _ in range(2)] == [whole.advance() for _ in range(2)]
    assert same(state(resumed), state(whole))
    started_over = advanced(make_erasure(method=method, target="relabel"), 2)
    assert not same(started_over.model.state_dict(), whole.model.state_dict()), "control: two steps are not four"


@every_method
def test_a_step_costs_what_its_docstring_says(make_erasure: Maker, method: str) -> None:
    """Red if SISS runs the model once a term, or a method runs a pass it does not need."""
    erasure, passes = make_erasure(method=method, target="relabel"), Passes()
    before = erasure.passes.forward, erasure.passes.backward
    with passes.counted():
        advanced(erasure, 2)
    forward, backward = PASSES[method]
    assert (passes.forward, passes.backward) == (2 * forward, 2 * backward)
    assert (erasure.passes.forward - before[0], erasure.passes.backward - before[1]) == (2 * forward, 2 * backward), "and the record says so"
    if method not in ("erasediff", "finetune"):
        assert f"{forward}F+{backward}B" in str(METHODS[method].__doc__)


@every_method
def test_a_batch_in_parts_gives_the_same_direction(make_erasure: Maker, method: str) -> None:
    """Away from the base, where a penalty has a gradient. Red if a method scales by the part's size and not by the batch's."""
    directions = []
    for accumulation in (1, 2):
        erasure = make_erasure(method=method, target="relabel", accumulation=accumulation)
        with torch.no_grad():
            torch._foreach_add_(list(erasure.bench.parameters), 0.01)
        erasure.method.step(erasure.bench, erasure.optimizer)
        directions.append([parameter.grad for parameter in erasure.bench.parameters])
    off = sum(float((a - b).square().sum()) for a, b in zip(*directions, strict=True))
    size = sum(float(a.square().sum()) for a in directions[0])
    assert size > 0
    assert off <= 1e-8 * size


class Half(Compute):
    """One of two processes."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.processes = rank, 2


def test_two_processes_see_the_rows_that_one_process_sees(make_erasure: Maker) -> None:
    """The batches that a method makes itself: SISS's pairs, with components and labels by row, and SA's surrogate.

    Red if a row is numbered within a process, or a number drawn that is not a row's. A batch of 12, so that the second
    process does not begin with a row that looks like the first.
    """
    bench = make_erasure(batch_size=12).bench
    whole = [bench, *(Workbench(**{n: getattr(bench, n) for n in FIELDS} | {"compute": Half(rank)}) for rank in (0, 1))]
    for make in (lambda b: paired(b, b.retain_batch(), b.forget_batch()), surrogate_batch):
        joint, first, second = map(make, whole)
        for name, value in vars(joint).items():
            assert torch.equal(value, torch.cat([getattr(first, name), getattr(second, name)])), name


FIELDS = ("model", "fresh", "parameters", "denoiser", "base", "teacher", "target", "mixture", "data", "schedule", "config", "seed")


@every_method
def test_a_part_of_the_weights_is_trained_alone(make_erasure: Maker, method: str) -> None:
    """What is not chosen keeps the base's values; `retrain` refuses."""
    if method == "retrain":
        with pytest.raises(BadInput, match="parameters says 'attention'"):
            METHODS["retrain"](EraseConfig(parameters="attention"))
        return
    erasure = make_erasure(method=method, target="relabel", parameters="attention")
    before = {name: value.detach().clone() for name, value in erasure.model.named_parameters()}
    erasure.advance()
    moved = {name for name, value in erasure.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all(".attentions." in name for name in moved)
