"""A run that crashes anywhere leaves the champion untouched, and the same command completes afterwards.

The runs are on a folder of colour images, as a user hands one in.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import clean
from tests.e2e.numbers import QUICK, asking, write_images

NAMES = ("zero", "three", "seven", "eight", "nine")
"""Names of classes that are no words of a log."""

pytestmark = pytest.mark.xdist_group("killed_run")  # one worker makes the runs that all of them look at


def champion(workdir: Path) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient(f"sqlite:///{workdir}/mlflow.db").get_model_version_by_alias("numbers", "champion").version)


def kill_when(workdir: Path, sign: str, *options: str, seconds: float = 400) -> int:
    """Start the quick run and kill its whole process group with SIGKILL as soon as a file appears."""
    command = [str(Path(sys.executable).parent / "erasediff"), "run", "--workdir", workdir, *asking("zero", workdir), *options]
    process = subprocess.Popen([str(c) for c in command], env=clean(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if list(workdir.glob(sign)):
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    return process.wait(60)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run killed in the middle of the erasure."""
    workdir = tmp_path_factory.mktemp("crash") / "work"
    write_images(workdir.parent / "numbers")
    code = kill_when(workdir, "runs/*/checkpoint.safetensors")
    assert code == -signal.SIGKILL
    return workdir


@pytest.fixture(scope="module")
def resumed(killed, erasediff):
    return killed, erasediff("run", "--workdir", killed, *asking("zero", killed))


def test_the_champion_is_untouched_and_nothing_half_written_has_a_final_name(killed):
    assert champion(killed) == "1"
    assert not list(killed.glob("runs/*/erased.json"))
    for path in killed.glob("runs/*/*.json"):
        json.loads(path.read_text())


def test_the_same_command_completes_from_the_checkpoint(resumed):
    workdir, done = resumed
    assert done.returncode == 0, done.stdout + done.stderr + (workdir / "pipeline.log").read_text()[-3000:]
    assert champion(workdir) == "2"
    assert len(list(workdir.glob("runs/*/plan.json"))) == 1, "the crashed attempt was taken up, not repeated"


def test_a_run_of_the_compiled_pipeline_that_was_killed_is_completed_by_either_runner(tmp_path, erasediff):
    workdir = tmp_path / "work"
    write_images(tmp_path / "numbers")
    assert kill_when(workdir, "runs/*/checkpoint.safetensors", "--runner", "kubeflow-local") == -signal.SIGKILL
    assert champion(workdir) == "1"
    done = erasediff("run", "--workdir", workdir, *asking("zero", workdir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert champion(workdir) == "2"
    assert len(list(workdir.glob("runs/*/plan.json"))) == 1, "the attempt was taken up, not repeated"
    again = erasediff("run", "--workdir", workdir, *asking("zero", workdir), "--runner", "kubeflow-local")
    assert again.returncode == 0, again.stdout + again.stderr
    assert champion(workdir) == "2"
    handed = (workdir / "pipeline.log").read_text()  # parameters and logs of all steps: on a cluster Kubeflow keeps them for ever
    assert "Evaluate" in handed or "evaluate" in handed, "control: it is the log of the steps"
    assert not [name for name in NAMES if re.search(rf"\b{name}\b", handed)], "the name of a class may be a person's"


def test_nothing_of_the_forget_set_is_left_in_the_workdir(resumed):
    workdir, _ = resumed
    assert not list(workdir.glob("runs/*/.scratch*"))
    assert not list(workdir.glob("runs/*/checkpoint.safetensors"))
    assert not list(workdir.rglob("*.part"))


def test_a_step_that_fails_leaves_an_outcome_that_names_it(resumed, erasediff):
    """The remote is a folder that does not exist: version_forget_set fails, the champion stays, exit code 2."""
    workdir, _ = resumed
    done = erasediff(
        "run", "--workdir", workdir, *asking("one", workdir), environment={"ERASEDIFF_DVC_REMOTE": str(workdir / "no" / "such" / "place")}
    )
    assert done.returncode == 2, done.stdout + done.stderr
    outcome = json.loads((workdir / "outcome.json").read_text())
    assert outcome["error"]["step"] == "version_forget_set"
    assert outcome["champion"] is None
    assert outcome["verdict"] is None
    assert (workdir / outcome["report"]).is_file()
    assert champion(workdir) == "2"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("verdict", "code", "change"),
    [
        ("FAIL", 10, {"forget": {"n": 200, "max_upper": 0.001, "max_reference": 0.5}}),
        ("INCONCLUSIVE", 11, {"control": {"min_detected": 1.0, "min_true_positive_rate": 0.8, "reference_steps": 2, "reference_rate": 1e-5}}),
    ],
)
def test_what_does_not_pass_is_not_promoted_and_says_so_in_its_exit_code(resumed, erasediff, tmp_path, verdict, code, change):
    """The same run as the one that passed, under a policy that no model can meet at this n; the pass above is the control."""
    workdir, _ = resumed
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(yaml.safe_load((QUICK / "policy.yaml").read_text()) | change))
    arguments = [policy if a == QUICK / "policy.yaml" else a for a in asking("two", workdir)]
    done = erasediff("run", "--workdir", workdir, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    outcome = json.loads((workdir / "outcome.json").read_text())
    assert (outcome["verdict"], outcome["champion"], outcome["error"]) == (verdict, None, None)
    assert champion(workdir) == "2"
    assert verdict in (workdir / "report.html").read_text()


def test_a_promotion_is_refused_when_the_champion_moved_meanwhile(resumed, erasediff):
    """The alias is put back to version 1 behind the run's back; promoting version 2 again must not follow."""
    from mlflow import MlflowClient

    workdir, _ = resumed
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    (run,) = [p.parent.name for p in workdir.glob("runs/*/promotion.json")]
    other = client.create_model_version("numbers", client.get_model_version("numbers", "1").source).version
    client.set_registered_model_alias("numbers", "champion", other)
    try:
        refused = erasediff("promote", "--workdir", workdir, "--run", run)
        assert refused.returncode == 2
        assert f"version {other}" in refused.stderr
        assert champion(workdir) == str(other)
    finally:
        client.set_registered_model_alias("numbers", "champion", "2")
    assert erasediff("promote", "--workdir", workdir, "--run", run).returncode == 0  # control: undisturbed, it is a no-op that succeeds
