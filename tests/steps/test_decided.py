"""The lie: 'nothing left to do', of a step whose record was made from something else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from erasediff.records.nouns import BaseRecord, ErasedRecord
from erasediff.records.workdir import CHECKPOINT, Run, Workdir
from erasediff.steps.decided import erased_of, standing
from tests.certified import promoted_run

PERFORM = """
import sys
from pathlib import Path
from erasediff.records.workdir import Workdir
from erasediff.steps.runner import perform
try:
    perform("erase", Workdir.open(Path(sys.argv[1])).run())
finally:
    print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, tiny_unet: Callable[..., torch.nn.Module]) -> Run:
    """An attempt with all its records; not to be changed."""
    return promoted_run(tmp_path_factory.mktemp("promoted") / "work", tiny_unet)


@pytest.fixture
def run(promoted: Run, tmp_path: Path) -> Run:
    """A copy of it whose erasure is done."""
    shutil.copytree(promoted.workdir.root, tmp_path / "work")
    run = Workdir.open(tmp_path / "work").run(promoted.name)
    run.need(ErasedRecord, "erase").model_copy(update={"made_from": erased_of(run)}).write(run.path(ErasedRecord))
    return run


def performed(run: Run) -> tuple[int, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ERASEDIFF", "AWS"))}
    done = subprocess.run([sys.executable, "-c", PERFORM, run.workdir.root], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip().splitlines()[-1]


def test_a_step_that_is_done_loads_no_torch(run: Run) -> None:
    """Control: with another base it has to work again, does so with torch, and fails for want of the model."""
    assert performed(run) == (0, "False")
    run.need(BaseRecord, "train-base").model_copy(update={"drift": 2.0}).write(run.path(BaseRecord))
    assert performed(run) == (1, "True")


def test_only_the_very_same_inputs_are_the_same(run: Run) -> None:
    assert standing("erase", run) == run.need(ErasedRecord, "erase")
    base = run.need(BaseRecord, "train-base")
    base.model_copy(update={"drift": 2.0}).write(run.path(BaseRecord))
    assert standing("erase", run) is None
    base.write(run.path(BaseRecord))
    assert standing("erase", run) is not None


def test_a_checkpoint_beside_the_record_is_something_to_do(run: Run) -> None:
    (run.folder / CHECKPOINT).write_bytes(b"moments")
    assert standing("erase", run) is None


def test_a_step_that_is_not_decided_by_records_is_always_performed(run: Run) -> None:
    assert standing("promote", run) is None
