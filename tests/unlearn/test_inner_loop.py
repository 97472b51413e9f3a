"""The lies: 'the inner loop of the released code does something', and 'it does nothing' where the optimiser is shared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from erasediff.records.config import EraseConfig
from erasediff.unlearn.trainer import Erasure

Maker = Callable[..., Erasure]


def after(erasure: Erasure, steps: int = 4) -> list[Tensor]:
    for _ in range(steps):
        erasure.advance()
    return [parameter.detach() for parameter in erasure.model.parameters()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("multiplier", ["paper", "cosine", "fixed"])
def test_with_an_optimiser_of_its_own_the_inner_loop_changes_no_bit(make_erasure: Maker, multiplier: str) -> None:
    """min over phi of L_f is a constant of theta: neither delta nor lambda contains it."""
    plain = after(make_erasure(multiplier=multiplier))
    assert equal(after(make_erasure(multiplier=multiplier, inner_steps=3)), plain)


def test_with_the_outer_optimiser_shared_it_does(make_erasure: Maker) -> None:
    """Only through Adam's moments, which have then seen the forget gradients: the released code's effect, and the control."""
    plain = after(make_erasure())
    assert not equal(after(make_erasure(inner_steps=3, share_optimizer_state=True)), plain)


def test_with_plain_gradient_descent_even_the_shared_loop_changes_no_bit(make_erasure: Maker) -> None:
    def descending(**settings: object) -> list[Tensor]:
        erasure = make_erasure(**settings)
        erasure.optimizer = torch.optim.SGD(erasure.bench.parameters, lr=1e-3)
        return after(erasure)

    assert equal(descending(inner_steps=3, share_optimizer_state=True), descending())


def test_it_costs_its_passes(make_erasure: Maker) -> None:
    """Relabelling: 3F + 2B a step, and 2F + 1B an inner step."""
    erasure = make_erasure(target="relabel", truth_share=1.0, inner_steps=2)
    after(erasure, 3)
    assert (erasure.passes.forward, erasure.passes.backward) == (3 * (3 + 2 * 2), 3 * (2 + 2 * 1))


def test_sharing_without_an_inner_loop_is_refused() -> None:
    with pytest.raises(ValidationError, match="share_optimizer_state is about the inner loop"):
        EraseConfig(share_optimizer_state=True)
