"""The lies: 'at once', 'neither is left running', 'two threads compute what one computes'."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from erasediff.models import training
from erasediff.models.families.unet import UNetDenoiser, build_unet
from erasediff.models.noised import NoisedBatch, denoising_loss
from erasediff.models.optimisation import side_by_side
from erasediff.models.process import NoiseSchedule
from erasediff.models.training import TrainingSet, descend
from erasediff.records.config import DenoiserConfig

CPU = torch.device("cpu")


def in_turn(first, second):
    return first(), second()


def test_each_meets_the_other_while_both_run() -> None:
    meeting = threading.Barrier(2, timeout=30)
    assert sorted(side_by_side(meeting.wait, meeting.wait)) == [0, 1]


def test_control_in_turn_they_never_meet() -> None:
    meeting = threading.Barrier(2, timeout=0.2)
    with pytest.raises(threading.BrokenBarrierError):
        in_turn(meeting.wait, meeting.wait)


def test_results_come_in_the_order_of_the_functions() -> None:
    def slow() -> str:
        time.sleep(0.05)
        return "first"

    assert side_by_side(slow, lambda: 2) == ("first", 2)


def failing(name: str):
    def fail() -> None:
        raise ValueError(name)

    return fail


def test_a_failure_waits_for_the_other_to_end() -> None:
    ended = threading.Event()

    def slow() -> None:
        time.sleep(0.1)
        ended.set()

    for first, second in ((slow, failing("second")), (failing("first"), slow)):
        ended.clear()
        with pytest.raises(ValueError, match=r"first|second"):
            side_by_side(first, second)
        assert ended.is_set()


def test_of_two_failures_the_first_is_told() -> None:
    with pytest.raises(ValueError, match="first"):
        side_by_side(failing("first"), failing("second"))


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    torch.manual_seed(3)
    return build_unet(DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4), 1, 8, 10)


def shown(batch_size: int) -> NoisedBatch:
    images = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    data = TrainingSet(images, torch.arange(32) % 10, 10, 0.1)
    return data.draw(NoiseSchedule(torch.linspace(0.99, 0.01, 100)), batch_size, torch.Generator().manual_seed(2), CPU)


def descended(unet: torch.nn.Module, batch: NoisedBatch) -> tuple[float, list[torch.Tensor]]:
    weights = list(unet.parameters())
    loss = descend(UNetDenoiser(unet), batch, weights)
    return loss, [weight.grad.clone() for weight in weights]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 16])
def test_a_batch_in_halves_has_the_gradient_of_its_loss(unet, batch_size: int) -> None:
    batch = shown(batch_size)
    loss, gradients = descended(unet, batch)
    wanted = denoising_loss(UNetDenoiser(unet), batch)
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    for got, expected in zip(gradients, torch.autograd.grad(wanted, list(unet.parameters())), strict=True):
        assert torch.allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_control_half_of_the_batch_has_another(unet) -> None:
    batch = shown(16)
    half = torch.autograd.grad(denoising_loss(UNetDenoiser(unet), batch.only(slice(8))), list(unet.parameters()))
    assert not all(torch.allclose(got, other, rtol=1e-3, atol=1e-6) for got, other in zip(descended(unet, batch)[1], half, strict=True))


def test_two_threads_leave_what_one_leaves_to_the_last_bit(unet, monkeypatch) -> None:
    threads: set[int] = set()

    def noted(first, second):
        return side_by_side(lambda: (threads.add(threading.get_ident()), first())[1], lambda: (threads.add(threading.get_ident()), second())[1])

    batch = shown(16)
    monkeypatch.setattr(training, "side_by_side", noted)
    beside = descended(unet, batch)
    monkeypatch.setattr(training, "side_by_side", in_turn)
    after = descended(unet, batch)
    assert len(threads) == 2
    assert beside[0] == after[0]
    assert all(torch.equal(a, b) for a, b in zip(beside[1], after[1], strict=True))
