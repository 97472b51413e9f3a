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

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.records.nouns import BaseRecord, ErasedRecord
from erasediff.steps.perform import finished_record, input_digests, perform
from erasediff.steps.table import CHECKPOINT, step_named
from tests.certified import promoted_run

ERASE = step_named("erase")
PERFORM = """
import sys
from pathlib import Path
from erasediff.attempts.workdir import Workdir
from erasediff.steps.perform import perform
from erasediff.steps.table import step_named
try:
    perform(step_named("erase"), Workdir.open(Path(sys.argv[1])).attempt())
finally:
    print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, tiny_unet: Callable[..., torch.nn.Module]) -> Attempt:
    """An attempt with all its records; not to be changed."""
    return promoted_run(tmp_path_factory.mktemp("promoted") / "work", tiny_unet)


@pytest.fixture
def run(promoted: Attempt, tmp_path: Path) -> Attempt:
    """A copy of it whose erasure is done."""
    shutil.copytree(promoted.workdir.root, tmp_path / "work")
    run = Workdir.open(tmp_path / "work").attempt(promoted.name)
    run.need(ErasedRecord).model_copy(update={"made_from": input_digests(ERASE, run)}).write(run.path(ErasedRecord))
    return run


def performed(run: Attempt) -> tuple[int, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ERASEDIFF", "AWS"))}
    done = subprocess.run([sys.executable, "-c", PERFORM, run.workdir.root], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip().splitlines()[-1]


def test_a_step_that_is_done_loads_no_torch(run: Attempt) -> None:
    """Control: with another base it has to work again, does so with torch, and fails for want of the model."""
    assert performed(run) == (0, "False")
    run.need(BaseRecord).model_copy(update={"drift": 2.0}).write(run.path(BaseRecord))
    assert performed(run) == (1, "True")


def test_only_the_very_same_inputs_are_the_same(run: Attempt) -> None:
    assert finished_record(ERASE, run) == run.need(ErasedRecord)
    base = run.need(BaseRecord)
    base.model_copy(update={"drift": 2.0}).write(run.path(BaseRecord))
    assert finished_record(ERASE, run) is None
    base.write(run.path(BaseRecord))
    assert finished_record(ERASE, run) is not None


def test_a_checkpoint_that_a_killed_erasure_left_beside_its_record_goes(run: Attempt) -> None:
    """It holds moments, which are functions of the forget images."""
    (run.folder / CHECKPOINT).write_bytes(b"moments")
    perform(ERASE, run)
    assert not (run.folder / CHECKPOINT).exists()


def test_a_step_that_is_not_decided_by_records_is_always_performed(run: Attempt) -> None:
    assert finished_record(step_named("promote"), run) is None
