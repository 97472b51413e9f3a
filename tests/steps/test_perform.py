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
from erasediff.attempts.journal import FAILURE, read_failure, read_seconds, record_seconds
from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput
from erasediff.files import exclusive_lock
from erasediff.records.core import BaseRecord, ErasedRecord
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


def test_a_second_command_is_refused_and_leaves_no_failure_in_the_attempt_under_way(run: Attempt) -> None:
    """Control: a step that fails of itself leaves one, which another step's end leaves alone, and its own end takes away."""
    with exclusive_lock(run.folder, "held by this test"), pytest.raises(BadInput, match="under way in another process"):
        perform(step_named("gate"), run)
    assert read_failure(run.folder) is None
    with pytest.raises(BadInput, match="run `erasediff evaluate` first"):
        perform(step_named("gate"), run)
    perform(ERASE, run)
    failure = read_failure(run.folder)
    assert failure is not None
    assert failure.step == "gate"
    failure.model_copy(update={"step": "erase"}).write(run.folder / FAILURE)
    perform(ERASE, run)
    assert read_failure(run.folder) is None


def test_the_time_of_a_step_is_that_of_its_last_work(run: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that has nothing left to do keeps it; one that worked again writes the new one, be it shorter."""
    record_seconds(run, "erase", 1000.0)
    perform(ERASE, run)
    assert read_seconds(run)["erase"] == 1000.0
    record = run.need(ErasedRecord)
    run.need(BaseRecord).model_copy(update={"drift": 2.0}).write(run.path(BaseRecord))
    monkeypatch.setattr("erasediff.steps.erase.erase", lambda attempt: record)
    perform(ERASE, run)
    assert read_seconds(run)["erase"] < 100
