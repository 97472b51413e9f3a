"""The lie: 'the run was resumed', while it went somewhere else than the run that was asked for."""

from __future__ import annotations

import copy
import random
import signal
import subprocess
import sys
from collections.abc import Callable
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


def start(program, *paths: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, program.__file__, *map(str, paths)], stdout=subprocess.PIPE, text=True)


def test_a_run_killed_anywhere_ends_where_an_unbroken_run_ends(tmp_path: Path, program, make_erasure: Maker) -> None:
    """SIGKILL at a random moment after the first checkpoint; then every weight and every curve, bit for bit."""
    checkpoint, result = tmp_path / "checkpoint.safetensors", tmp_path / "result.safetensors"
    kill_at = random.SystemRandom().randint(4, 25)
    with start(program, checkpoint, result) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if int(line) == kill_at:
                killed.kill()
                break
    assert killed.returncode == -signal.SIGKILL
    assert not result.exists()
    reached = load_checkpoint(checkpoint, KEY).step
    assert reached >= 4
    with start(program, checkpoint, result) as resumed:
        assert resumed.stdout is not None
        steps = [int(line) for line in resumed.stdout]
    assert steps == list(range(reached + 1, 41)), "it went on from the checkpoint and not from the beginning"
    unbroken = program.everything(run(make_erasure(), tmp_path / "other", KEY, lambda _: None))
    assert same(load_file(result), unbroken), f"killed at {kill_at}, resumed at {reached}"
    other = program.everything(run(make_erasure(seed=1), tmp_path / "third", KEY, lambda _: None))
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
