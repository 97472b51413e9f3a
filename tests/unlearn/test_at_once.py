"""The lie: 'the retain and the forget gradient may be had at once, and nothing else changes'."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from erasediff.models.optimisation import side_by_side
from erasediff.unlearn import workbench
from erasediff.unlearn.trainer import Erasure

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


def test_a_step_is_that_of_gradients_that_went_through_the_parameters(make_erasure, monkeypatch) -> None:
    """``.grad`` is what an optimiser is written for: it lies in memory as its parameter does."""

    def through_the_parameters(loss, weights, *, keep_graph=False):
        torch.autograd.backward(loss, retain_graph=keep_graph, inputs=list(weights))
        found = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        for weight in weights:
            weight.grad = None
        return found

    apart = taken(make_erasure())
    monkeypatch.setattr(workbench, "side_by_side", lambda first, second: (first(), second()))
    monkeypatch.setattr(workbench, "gradient_of", through_the_parameters)
    through = taken(make_erasure())
    assert apart[1:] == through[1:]
    assert all(torch.equal(a, b) for a, b in zip(apart[0], through[0], strict=True))


def test_control_gradients_as_autograd_hands_them_out_end_elsewhere(make_erasure, monkeypatch) -> None:
    """Some are transposed, and a fused optimiser takes their elements in the order in which they lie."""
    apart = taken(make_erasure())
    monkeypatch.setattr(
        workbench,
        "gradient_of",
        lambda loss, weights, *, keep_graph=False: list(torch.autograd.grad(loss, list(weights), retain_graph=keep_graph, materialize_grads=True)),
    )
    assert not all(torch.equal(a, b) for a, b in zip(apart[0], taken(make_erasure())[0], strict=True))
