"""The lie: 'two processes did what one would have done', while each computed a λ of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.process import NoiseSchedule
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.trainer import run

JOINT = Path(__file__).with_name("joint.py")
TOLERANCE = 5e-5
"""Gradients of the two halves are averaged in float32, so they differ from the joint gradient by rounding, about 1e-7 of it;
Adam divides by the root of a second moment that starts near 0, which lets a rounding error grow to a part of a step (5e-4)."""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What joint.py wrote."""
    folder = tmp_path_factory.mktemp("two")
    subprocess.run([sys.executable, str(JOINT), str(folder)], check=True, timeout=300)
    return folder


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    return max(float((left[name] - right[name]).abs().max()) for name in left if name != "numbers")


@pytest.fixture
def alone(program, make_erasure: Callable[..., object], tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """The same erasure in this process, with other settings where they are given."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("joint", JOINT)
    joint = module_from_spec(spec)
    spec.loader.exec_module(joint)

    def ended(name: str, **settings: object) -> dict[str, Tensor]:
        erasure = make_erasure(earlier=(1,), **joint.SETTINGS | settings)
        return program.everything(run(erasure, tmp_path / name, program.KEY, lambda _: None))

    return ended


def test_two_processes_end_where_one_with_the_joint_batch_ends(together: Path, alone: Callable[..., dict[str, Tensor]]) -> None:
    """Weights, losses, λ and cosine of every step. With λ from each process's own gradients the curves would part at step 0."""
    first, second = (load_file(together / f"result-{rank}") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first), "both processes hold the same model"
    assert distance(first, alone("same")) < TOLERANCE
    assert distance(first, alone("other", eta=0.6)) > 5 * TOLERANCE, "control: the comparison sees another λ"


def test_a_run_of_two_resumes_from_its_checkpoint(together: Path) -> None:
    """The first process writes the checkpoint, both read it."""
    assert (together / "checkpoint").is_file()
    for rank in range(2):
        whole, again = (load_file(together / f"{name}-{rank}") for name in ("result", "again"))
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
