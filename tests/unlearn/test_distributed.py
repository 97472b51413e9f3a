"""The lie: 'two processes did what one would have done', while each computed a λ of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.denoiser import NoiseSchedule
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.trainer import run

JOINT = Path(__file__).with_name("joint.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TOLERANCE = 5e-5
"""Gradients of the two halves are averaged in float32, so they differ from the joint gradient by rounding, about 1e-7 of it;
Adam divides by the root of a second moment that starts near 0, which lets a rounding error grow to a part of a step (5e-4)."""


def together(folder: Path, **settings: object) -> list[dict[str, Tensor]]:
    folder.mkdir()
    subprocess.run([*TORCHRUN, str(JOINT), str(folder), json.dumps(settings)], check=True, timeout=300)
    return [load_file(folder / f"result-{rank}") for rank in range(2)]


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    return max(float((left[name] - right[name]).abs().max()) for name in left if name != "numbers")


@pytest.fixture(scope="module")
def alone(program, make_erasure: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("joint", JOINT)
    joint = module_from_spec(spec)
    spec.loader.exec_module(joint)
    erasure = make_erasure(earlier=(1,), **joint.SETTINGS)
    return program.everything(run(erasure, tmp_path_factory.mktemp("alone") / "c", program.KEY, lambda _: None))


def test_two_processes_end_where_one_with_the_joint_batch_ends(tmp_path: Path, alone: dict[str, Tensor]) -> None:
    """Weights, losses, λ and cosine of every step. With λ from each process's own gradients the curves would part at step 0."""
    first, second = together(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first), "both processes hold the same model"
    assert distance(first, alone) < TOLERANCE
    other, _ = together(tmp_path / "other", eta=0.6)
    assert distance(other, alone) > 5 * TOLERANCE, "control: the comparison sees another λ"


def test_a_run_of_two_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    """The first process writes the checkpoint, both read it."""
    whole = together(tmp_path / "whole")[0]
    assert (tmp_path / "whole" / "checkpoint").is_file()
    resumed = subprocess.run([*TORCHRUN, str(JOINT), str(tmp_path / "whole"), "{}"], check=True, timeout=300)
    assert resumed.returncode == 0
    again = load_file(tmp_path / "whole" / "result-0")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_every_process_has_its_own_rows_of_the_joint_numbers(schedule: NoiseSchedule) -> None:
    draws: list[Callable[[Randomness, int], Tensor]] = [
        lambda random, count: random.normal(count, 2, 3),
        lambda random, count: random.integers(50, count),
        lambda random, count: random.uniform(count),
        lambda random, count: random.timesteps(schedule, count),
    ]
    joint, parts = Randomness(3), [Randomness(3, rank, 2) for rank in range(2)]
    for draw in draws:
        whole, halves = draw(joint, 8), [draw(part, 4) for part in parts]
        assert torch.equal(torch.cat(halves), whole)
        assert not torch.equal(*halves), "control: the halves differ"


@pytest.mark.parametrize(("batch_size", "accumulation"), [(9, 2), (8, 3)])
def test_a_batch_that_does_not_divide_is_refused(make_erasure: Callable[..., object], batch_size: int, accumulation: int) -> None:
    with pytest.raises(BadInput, match=rf"^erase.batch_size {batch_size} does not divide by 1 processes × {accumulation} parts: .*\.$"):
        make_erasure(batch_size=batch_size, accumulation=accumulation)


def test_taking_a_batch_in_parts_changes_nothing_but_rounding(tmp_path: Path, program, make_erasure: Callable[..., object]) -> None:
    def ended(name: str, **settings: object) -> dict[str, Tensor]:
        return program.everything(run(make_erasure(steps=6, **settings), tmp_path / name, program.KEY, lambda _: None))

    whole = ended("whole")
    assert distance(ended("parts", accumulation=4), whole) < TOLERANCE
    assert distance(ended("other", learning_rate=6e-4), whole) > 5 * TOLERANCE, "control"
