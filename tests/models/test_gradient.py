"""The lie: 'the gradient apart is the one that would be in .grad'."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from erasediff.models.families.unet import UNetDenoiser, build_unet
from erasediff.models.optimisation import gradient_of
from erasediff.records.config import DenoiserConfig


def raw(loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, weights, materialize_grads=True))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(3)
    return build_unet(DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4), 1, 8, 10)


def loss_of(unet: nn.Module) -> Tensor:
    noised = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return UNetDenoiser(unet)(noised, torch.arange(6), torch.arange(6)).square().mean()


def test_it_is_what_backward_leaves_and_lies_as_the_weights_do(unet) -> None:
    weights = list(unet.parameters())
    unet.zero_grad(set_to_none=True)
    loss_of(unet).backward()
    left = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    unet.zero_grad(set_to_none=True)
    apart = gradient_of(loss_of(unet), weights)
    assert all(weight.grad is None for weight in weights)
    for mine, theirs, weight in zip(apart, left, weights, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.stride() == weight.stride()


def test_control_autograd_hands_out_transposed_ones(unet) -> None:
    weights = list(unet.parameters())
    assert any(tensor.stride() != weight.stride() for tensor, weight in zip(raw(loss_of(unet), weights), weights, strict=True))


def added() -> tuple[Tensor, list[Tensor]]:
    """Two weights whose gradients are one."""
    first, second = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    return (first + second).square().sum(), [first, second]


def test_two_weights_never_share_one() -> None:
    """What is shared would be changed twice in place."""
    loss, weights = added()
    one, other = gradient_of(loss, weights)
    one.mul_(10)
    assert (one.tolist(), other.tolist()) == ([40.0, 40.0], [4.0, 4.0])


def test_control_of_autograd_they_do() -> None:
    loss, weights = added()
    one, other = raw(loss, weights)
    one.mul_(10)
    assert other.tolist() == [40.0, 40.0]


def test_a_stretched_one_is_laid_out() -> None:
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="single memory location"):
        raw(weight.sum(), [weight])[0].add_(torch.arange(3.0))
    assert gradient_of(weight.sum(), [weight])[0].add_(torch.arange(3.0)).tolist() == [1.0, 2.0, 3.0]


def test_a_weight_that_is_not_used_has_none_to_speak_of() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    assert gradient_of(used.sum(), [used, unused])[1].tolist() == [0.0, 0.0]


def test_a_graph_that_is_kept_is_asked_again() -> None:
    loss, weights = added()
    first = gradient_of(loss, weights, keep_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, gradient_of(loss, weights), strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        gradient_of(loss, weights)
