"""The lie: 'the run was resumed', while it went somewhere else than the run that was asked for."""

from __future__ import annotations

import copy
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erasediff.errors import IntegrityError
from erasediff.unlearn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from erasediff.unlearn.trainer import Erasure, ErasureResult, run

KEY = "0" * 64
Maker = Callable[..., Erasure]


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Nursery:
    """Real processes that run the erasure of resumable.py, without importing torch anew for each."""

    def __init__(self) -> None:
        command = [sys.executable, Path(__file__).with_name("nursery.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, checkpoint: Path, result: Path, kill_after: float | None = None) -> tuple[int, float]:
        """The wait status of one process, and its seconds."""
        started = time.monotonic()
        print(checkpoint, result, file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        if kill_after is not None and not select.select([self.process.stdout], [], [], kill_after)[0]:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline()), time.monotonic() - started


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.process.stdin.close()
    found.process.wait(60)


@pytest.mark.faults
def test_a_run_killed_anywhere_ends_where_an_unbroken_run_ends(tmp_path: Path, nursery: Nursery, program, make_erasure: Maker) -> None:
    """SIGKILL at 20 random moments of a real process, then the same command again: every weight and curve, bit for bit."""
    status, seconds = nursery.run(tmp_path / "c", tmp_path / "unbroken")
    assert status == 0
    unbroken, resumed_at = load_file(tmp_path / "unbroken"), []
    for attempt in range(60):
        checkpoint, result = tmp_path / f"checkpoint-{attempt}", tmp_path / f"result-{attempt}"
        moment = random.SystemRandom().uniform(0, seconds)
        status, took = nursery.run(checkpoint, result, moment)
        if status == 0:
            seconds = took  # the machine is faster now: it had ended before the moment came
            continue
        assert status == signal.SIGKILL
        assert not result.exists()
        resumed_at.append(load_checkpoint(checkpoint, KEY).step if checkpoint.exists() else 0)
        assert nursery.run(checkpoint, result)[0] == 0
        assert same(load_file(result), unbroken), f"killed after {moment:.3f} s of {seconds:.3f} s, resumed at step {resumed_at[-1]}"
        if len(resumed_at) == 20:
            break
    assert len(resumed_at) == 20
    assert len(set(resumed_at)) >= 4, "the kills came at different steps"
    here = program.everything(run(make_erasure(earlier=(1,), steps=12, checkpoint_every=2, batch_size=4), tmp_path / "here", KEY, lambda _: None))
    assert same(here, unbroken)
    other = program.everything(run(make_erasure(seed=1, earlier=(1,), steps=12, batch_size=4), tmp_path / "other", KEY, lambda _: None))
    assert not same(other, unbroken), "control: the comparison sees another seed"


def advanced(erasure: Erasure, steps: int) -> Erasure:
    for _ in range(steps):
        erasure.advance()
    return erasure


def state(erasure: Erasure) -> dict[str, Tensor]:
    checkpoint = erasure.checkpoint()
    return checkpoint.tensors | {name: torch.tensor(value) for name, value in checkpoint.numbers.items()} | {"step": torch.tensor(checkpoint.step)}


def through_a_file(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    save_checkpoint(path, checkpoint, KEY)
    return load_checkpoint(path, KEY)


def test_one_step_after_a_checkpoint_is_the_step_of_the_unbroken_run(tmp_path: Path, make_erasure: Maker) -> None:
    """Model, EMA, both Adam moments and their step, generator, curves, counters: nothing is left out."""
    whole = advanced(make_erasure(), 3)
    saved = through_a_file(tmp_path / "c", whole.checkpoint())
    resumed = make_erasure(seed=7)  # everything of this start has to be overwritten
    resumed.restore(saved)
    assert same(state(resumed), state(whole))
    assert resumed.advance() == whole.advance()
    assert same(state(resumed), state(whole))


@pytest.mark.parametrize("part", ["model.", "ema.", "optimizer.", "generator", "ema_updates", "ema_initial_share", "curves", "step"])
def test_control_a_checkpoint_without_one_part_goes_elsewhere(make_erasure: Maker, part: str) -> None:
    """Each part of the state, taken from a fresh start instead, is missed by the comparison above."""
    whole, fresh = advanced(make_erasure(), 3), make_erasure(seed=7)
    full, empty = whole.checkpoint(), copy.deepcopy(fresh.checkpoint())
    tensors = {name: value for name, value in full.tensors.items() if not name.startswith(part)}
    tensors |= {name: value for name, value in empty.tensors.items() if name.startswith(part)}
    numbers = {name: (empty.numbers if name == part else full.numbers)[name] for name in full.numbers}
    damaged = Checkpoint(empty.step if part == "step" else full.step, tensors, numbers)
    resumed = make_erasure(seed=7)
    resumed.restore(damaged)
    for erasure in (whole, resumed):
        erasure.advance()
    assert not same(state(resumed), state(whole))


@pytest.fixture
def checkpoint(tmp_path: Path, make_erasure: Maker) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, advanced(make_erasure(), 1).checkpoint(), KEY)
    return path


def refused(path: Path, part: str, key: str = KEY) -> None:
    with pytest.raises(IntegrityError, match=r"^[^\n]*: remove .* to start the erasure from its beginning\.$") as error:
        load_checkpoint(path, key)
    assert part in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_checkpoint_that_is_cut_short_is_refused(checkpoint: Path, share: float) -> None:
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    refused(checkpoint, "is cut short or not a checkpoint")


def test_a_single_flipped_bit_is_refused(checkpoint: Path) -> None:
    """Anywhere in the file: in its length, its header, its digest, or a weight."""
    data = checkpoint.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = random.Random(0)
    places = [*range(8), *rng.sample(range(8, header), 60), *rng.sample(range(header, len(data)), 30)]
    for place in places:
        bad = bytearray(data)
        bad[place] ^= 1 << rng.randrange(8)
        checkpoint.write_bytes(bad)
        with pytest.raises(IntegrityError):
            load_checkpoint(checkpoint, KEY)
    checkpoint.write_bytes(data)
    assert load_checkpoint(checkpoint, KEY).step == 1, "control: the undamaged file is accepted"


def test_a_foreign_checkpoint_is_refused(checkpoint: Path) -> None:
    refused(checkpoint, "belongs to another run", key="1" * 64)
    save_file({"a": torch.zeros(2)}, checkpoint)
    refused(checkpoint, "does not have the digest")
    checkpoint.write_bytes(b"\x80\x04 a pickle, say")
    refused(checkpoint, "not a checkpoint")


def test_a_run_does_not_start_over_from_a_checkpoint_it_refuses(checkpoint: Path, make_erasure: Maker) -> None:
    """Starting over in silence would spend the time again and hide that something touched the file."""
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(IntegrityError):
        run(make_erasure(), checkpoint, KEY, lambda _: None)


def test_what_leaves_the_engine_holds_no_optimiser_state(tmp_path: Path, make_erasure: Maker) -> None:
    """Adam's moments are functions of the forget images: the released code ships them, this must not."""
    erasure = make_erasure(steps=5)
    result = run(erasure, tmp_path / "c", KEY, lambda _: None)
    assert {field.name for field in fields(ErasureResult)} == {"model", "curves", "steps", "ema_base_share", "forward_passes", "backward_passes"}
    assert result.model.state_dict().keys() == erasure.model.state_dict().keys()
    assert not any(value.requires_grad or value.grad is not None for value in result.model.parameters())
    shipped = [value for value in result.model.state_dict().values() if value.numel() > 1]
    moments = [value for s in erasure.optimizer.state.values() for value in (s["exp_avg"], s["exp_avg_sq"]) if value.numel() > 1]
    assert moments
    assert not any(a.shape == b.shape and torch.equal(a, b) for a in shipped for b in moments)
    assert {len(curve) for curve in result.curves.values()} == {5}
