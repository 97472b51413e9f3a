"""The lie: 'the retain and the forget gradient may be had at once, and nothing else changes'."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from erasediff.models.side_by_side import side_by_side
from erasediff.unlearn import workbench
from erasediff.unlearn.trainer import Erasure
from erasediff.unlearn.workbench import each_its_own
from tests.unlearn.toys import Bench, Line, given

STEPS = 3
SETTINGS = [*({"method": name} for name in ("erasediff", "neggrad", "salun", "munba", "sa")), {"truth_share": 1.0}, {"teacher_pool": 2}]


def taken(erasure: Erasure) -> tuple[list[torch.Tensor], list[object], tuple[int, int]]:
    reports = [erasure.advance() for _ in range(STEPS)]
    return [p.detach().clone() for p in erasure.model.parameters()], list(reports), (erasure.passes.forward, erasure.passes.backward)


@pytest.fixture
def at_once(monkeypatch) -> list[set[int]]:
    """The threads of each pair that was computed at once."""
    pairs: list[set[int]] = []

    def noted(first: Callable[[], object], second: Callable[[], object]) -> tuple[object, object]:
        pairs.append(threads := set())

        def noting(call: Callable[[], object]) -> Callable[[], object]:
            return lambda: (threads.add(threading.get_ident()), call())[1]

        return side_by_side(noting(first), noting(second))

    monkeypatch.setattr(workbench, "side_by_side", noted)
    return pairs


@pytest.mark.parametrize("settings", [*SETTINGS, {"mixture_estimate": "drawn"}], ids=str)
def test_it_ends_where_it_ends_in_turn_to_the_last_bit(make_erasure, monkeypatch, at_once, settings) -> None:
    beside = taken(make_erasure(**settings))
    assert [len(threads) for threads in at_once] == [2] * STEPS
    monkeypatch.setattr(workbench, "side_by_side", lambda first, second: (first(), second()))
    after = taken(make_erasure(**settings))
    assert beside[1:] == after[1:]
    assert all(torch.equal(a, b) for a, b in zip(beside[0], after[0], strict=True))


def test_control_numbers_drawn_in_another_order_end_elsewhere(make_erasure, monkeypatch) -> None:
    ordered = taken(make_erasure())

    def mixed(first, second):
        torch.rand(1, generator=erasure.bench.random.generator)
        return first(), second()

    monkeypatch.setattr(workbench, "side_by_side", mixed)
    erasure = make_erasure()
    assert not all(torch.equal(a, b) for a, b in zip(ordered[0], taken(erasure)[0], strict=True))


def test_a_batch_in_parts_is_taken_in_turn(make_erasure, at_once) -> None:
    """Its gradient gathers in the parameters' ``.grad``, which threads would share."""
    taken(make_erasure(accumulation=2))
    assert not at_once


def test_so_is_that_of_several_processes(make_erasure, monkeypatch, at_once) -> None:
    """They reduce one gradient after the other; two threads could reduce them crosswise."""
    erasure = make_erasure()
    erasure.bench.compute.processes = 2
    monkeypatch.setattr(type(erasure.bench.compute), "mean_", lambda self, gradient: None)
    erasure.advance()
    assert not at_once


class Added(Line):
    """eps(x) = (a + b) x: the gradients of a and b are one."""

    def __call__(self, noised, timesteps, labels):
        return (self.parameters[0] + self.parameters[1]) * noised


def test_two_parameters_never_share_a_gradient() -> None:
    """What is shared would be changed twice in place."""
    line, batch = Added(), given(2.0)
    bench = Bench(line, batch, batch)
    for gradient in bench.denoising_gradients(lambda: batch, lambda: batch):
        torch._foreach_add_(gradient.tensors, gradient.tensors[::-1])
        assert [float(tensor) for tensor in gradient.tensors] == [16.0, 24.0]  # 8 + 8, and 8 + what the first has become


def test_control_autograd_hands_out_one_for_both() -> None:
    line, batch = Added(), given(2.0)
    shared = torch.autograd.grad(line(batch.noised, batch.timesteps, batch.labels).square().mean(), line.parameters)
    assert shared[0].data_ptr() == shared[1].data_ptr()
    torch._foreach_add_(list(shared), list(shared[::-1]))
    assert [float(tensor) for tensor in shared] == [32.0, 32.0]


def test_a_stretched_gradient_is_laid_out() -> None:
    (stretched,) = torch.autograd.grad((weight := torch.ones(3, requires_grad=True)).sum(), weight)
    with pytest.raises(RuntimeError, match="single memory location"):
        stretched.add_(torch.arange(3.0))
    assert each_its_own([stretched])[0].add_(torch.arange(3.0)).tolist() == [1.0, 2.0, 3.0]
