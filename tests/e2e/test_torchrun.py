"""``torchrun … -m -- erasediff erase`` on two processes writes one record, of the model that one process would have made."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from erasediff.attempts.workdir import Workdir
from erasediff.models.layout import WEIGHTS
from erasediff.records.core import ErasedRecord
from erasediff.trainjob import torchrun_arguments
from tests.e2e.conftest import clean

QUICK = Path(__file__).parent / "quick"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TOLERANCE = 2e-4  # 20 steps of Adam at 2e-3: a rounding error of 1e-7 can grow to a small part of a step


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As the pod of a TrainJob does, with the umask that a container runtime gives it."""
    command, pod = [*TORCHRUN, *torchrun_arguments(*map(str, arguments))], clean({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    return subprocess.run(command, env=pod, umask=0o022, capture_output=True, text=True, check=False, timeout=600)


def modes(workdir: Workdir, record: ErasedRecord) -> tuple[int, int]:
    """The permissions of the folder of the erased model and of the record."""
    paths = workdir.models / record.model.weights.uri, workdir.attempt().path(ErasedRecord)
    return tuple(path.stat().st_mode & 0o777 for path in paths)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, erasediff: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    """A workdir in which the erasure is the next step."""
    folder = tmp_path_factory.mktemp("torchrun")
    document = yaml.safe_load((QUICK / "config.yaml").read_text())
    document["base_training"] |= {"steps": 60}
    document["erase"] |= {"steps": 20, "checkpoint_every": 100}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))

    def run(*arguments: object) -> None:
        done = erasediff(*arguments, "--workdir", folder / "work")
        assert done.returncode == 0, done.stdout + done.stderr

    run("check-prerequisites", "--forget-label", 0, "--config", folder / "config.yaml", "--policy", QUICK / "policy.yaml")
    run("train-base", "--run", Workdir.open(folder / "work").attempt().name)
    run("version-forget-set")
    return folder / "work"


def erased(ready: Path, name: str, program: Callable[..., subprocess.CompletedProcess[str]]) -> tuple[ErasedRecord, dict, Workdir, str]:
    workdir = Workdir(shutil.copytree(ready, ready.parent / name))
    done = program("erase", "--workdir", workdir.root)
    assert done.returncode == 0, done.stdout + done.stderr
    record = workdir.attempt().need(ErasedRecord)
    return record, load_file(workdir.models / record.model.weights.uri / WEIGHTS), workdir, done.stdout


def test_two_processes_write_the_record_of_one(ready: Path, erasediff: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    alone, wanted, before, _ = erased(ready, "alone", erasediff)
    os.umask(umask := os.umask(0))
    together, found, workdir, said = erased(ready, "together", torchrun)
    worst = max(float((wanted[name] - found[name]).abs().max()) for name in wanted)
    base = load_file(next(p for p in (ready / "models").glob(f"*/{WEIGHTS}")))
    moved = max(float((wanted[name] - base[name]).abs().max()) for name in wanted)
    assert worst < TOLERANCE < moved / 20, "control: the erasure moved the weights by far more than the two differ"
    assert together.made_from == alone.made_from
    assert (together.steps, together.forward_passes) == (alone.steps, alone.forward_passes)
    assert said.count("erase: ") == 1, "one of the two speaks"
    assert modes(workdir, together) == (0o770, 0o660), "in a pod what is written is for the group that shares the workdir"
    assert modes(before, alone) == (0o777 & ~umask, 0o666 & ~umask), "control: elsewhere the umask is the user's"
    assert not list(workdir.root.glob("runs/*/.scratch*"))
    assert not list(workdir.root.rglob("*.part"))
    assert len(list((workdir.root / "runs").glob("*/erased.json"))) == 1
