"""The lies: 'the inner loop of the released code does something', and 'it does nothing' where the optimiser is shared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.released import Released
from erasediff.unlearn.methods import Method
from erasediff.unlearn.trainer import Erasure
from tests.unlearn.resumable import make_erasure


class Apart(Released):
    """The inner loop with an optimiser of its own."""

    shares_optimizer = False


def with_method(method: type[Method], **settings: object) -> Erasure:
    erasure = make_erasure(**settings)
    erasure.method = method(erasure.config)
    return erasure


def after(erasure: Erasure, steps: int = 4) -> list[Tensor]:
    for _ in range(steps):
        erasure.advance()
    return [parameter.detach() for parameter in erasure.model.parameters()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("multiplier", ["paper", "cosine", "fixed"])
def test_with_an_optimiser_of_its_own_the_inner_loop_changes_no_bit(multiplier: str) -> None:
    """min over phi of L_f is a constant of theta: neither delta nor lambda contains it."""
    inner = with_method(Apart, multiplier=multiplier)
    plain = make_erasure(multiplier=multiplier)
    assert equal(after(inner), after(plain))
    assert inner.passes.backward == 2 * plain.passes.backward, "control: the loop ran"


def test_with_the_outer_optimiser_shared_it_does() -> None:
    """Only through Adam's moments, which have then seen the forget gradients: the released code's effect, and the control."""
    assert not equal(after(with_method(Released)), after(make_erasure()))


def test_with_plain_gradient_descent_even_the_shared_loop_changes_no_bit() -> None:
    def descending(erasure: Erasure) -> list[Tensor]:
        erasure.optimizer = torch.optim.SGD(erasure.bench.parameters, lr=1e-3)
        return after(erasure)

    assert equal(descending(with_method(Released)), descending(make_erasure()))
