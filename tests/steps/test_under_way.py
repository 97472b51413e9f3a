"""Two runs of Kubeflow in one workdir: the second one is told when it begins, and leaves everything of the first one as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from erasediff.attempts import under_way
from erasediff.attempts.under_way import UnderWay
from erasediff.attempts.workdir import Workdir
from erasediff.environment import KUBEFLOW_RUN
from erasediff.errors import BadInput, ExitCode
from erasediff.files import exclusive_lock
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, Outcome
from erasediff.records.policy import load_policy
from erasediff.runner import run
from erasediff.steps.component import Documents, Done, perform_component
from erasediff.stopping import Stopped
from tests.certified import ROOT
from tests.digits import handed

CONFIG, POLICY = RunConfig(), load_policy(ROOT / "policies/class-conditional.yaml")
FIRST, SECOND = "run-1", "run-2"
PENDING = "ERASEDIFF_RUN_PENDING_MINUTES"


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Workdir.open(tmp_path / "work")


class KubeflowRun:
    """The steps of a run as Kubeflow starts them: with the run's id in their environment."""

    def __init__(self, name: str, workdir: Workdir, label: int | None, monkeypatch: pytest.MonkeyPatch, if_busy: str = "fail") -> None:
        self.name, self._workdir, self._monkeypatch = name, workdir, monkeypatch
        self._documents = Documents("" if label is None else handed(label), CONFIG.canonical().decode(), POLICY.canonical().decode(), if_busy)

    def step(self, name: str, attempt: str = "") -> Done:
        with self._monkeypatch.context() as environment:
            environment.setenv(KUBEFLOW_RUN, self.name)
            return perform_component(name, str(self._workdir.root), run=attempt, documents=None if attempt else self._documents)

    def begin(self) -> str:
        return self.step("check_prerequisites").text

    def end(self) -> bytes:
        return self.step("record_outcome").report


def files(workdir: Workdir) -> dict[str, bytes]:
    """Everything in the workdir, without MLflow's own database."""
    return {
        str(path.relative_to(workdir.root)): path.read_bytes() for path in workdir.root.rglob("*") if path.is_file() and "mlflow" not in path.name
    }


@pytest.mark.parametrize("label", [3, 5])
def test_the_second_run_is_refused_when_it_begins_and_changes_nothing(
    workdir: Workdir, label: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same request or another one. Control: once the first one has ended, the second one begins."""
    first, second = (KubeflowRun(name, workdir, of, monkeypatch) for name, of in ((FIRST, 3), (SECOND, label)))
    attempt = first.begin()
    before = files(workdir)
    with pytest.raises(SystemExit) as refused:
        second.begin()
    assert refused.value.code == ExitCode.BAD_INPUT
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"erasediff check-prerequisites (exit code 2): run {FIRST} has been under way in ")
    assert second.end() == b"", "its last step leaves the first one's outcome alone"
    assert files(workdir) == before
    with pytest.raises(SystemExit):  # the forget set needs the base; what counts is whose failure it is
        first.step("version_forget_set", attempt)
    assert first.end() == workdir.report.read_bytes()
    assert Outcome.read(workdir.outcome).forget.label == "3"
    assert second.begin(), "control"


def test_a_schedule_that_meets_a_run_is_green_and_does_nothing(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    KubeflowRun(FIRST, workdir, 3, monkeypatch).begin()
    before = files(workdir)
    for label in (3, None):  # a schedule for a class, and one for what the ledger owes
        scheduled = KubeflowRun(SECOND, workdir, label, monkeypatch, if_busy="skip")
        assert scheduled.begin() == ""
        assert scheduled.step("regate") == Done()
        assert scheduled.end() == b""
    assert files(workdir) == before
    assert "nothing is done until this schedule's next time" in capsys.readouterr().err


def test_a_step_that_is_run_again_keeps_its_place(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubeflow runs a step again in the same run after an eviction."""
    first = KubeflowRun(FIRST, workdir, 3, monkeypatch)
    assert first.begin() == first.begin()


def test_a_run_keeps_the_workdir_while_its_next_step_waits_for_a_node_and_no_longer(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (KubeflowRun(name, workdir, 3, monkeypatch) for name in (FIRST, SECOND))
    attempt = first.begin()
    left = UnderWay.read(workdir.under_way).until - datetime.now(UTC)
    assert timedelta(minutes=55) < left <= timedelta(minutes=60)
    monkeypatch.setenv(PENDING, "0.0001")
    assert first.begin() == attempt
    while UnderWay.read(workdir.under_way).is_live():
        pass
    assert second.begin() == attempt, "a terminated run does not keep the workdir for ever; the same request goes on with its attempt"
    monkeypatch.delenv(PENDING)
    with pytest.raises(SystemExit) as refused:
        first.step("version_forget_set", attempt)
    assert refused.value.code == ExitCode.BAD_INPUT
    assert UnderWay.read(workdir.under_way).run == SECOND


def test_a_killed_step_keeps_the_workdir_for_minutes_and_a_working_one_as_long_as_it_works(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it holds the workdir; then one that works for longer than what it holds the workdir for."""
    program = (
        "import os, signal; from pathlib import Path; from erasediff.attempts import under_way; from erasediff.attempts.workdir import Workdir;"
        f"held = under_way.kept(Workdir(Path({str(workdir.root)!r})), 'erase'); held.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, KUBEFLOW_RUN: FIRST}, check=False)
    assert timedelta(minutes=4) < UnderWay.read(workdir.under_way).until - datetime.now(UTC) <= timedelta(minutes=5)
    monkeypatch.setenv(KUBEFLOW_RUN, FIRST)
    monkeypatch.setattr(under_way, "_SILENT", timedelta(seconds=0.5))
    for beat, alive in ((timedelta(seconds=0.01), True), (timedelta(minutes=1), False)):  # control: without a beat it lapses
        monkeypatch.setattr(under_way, "_BEAT", beat)
        with under_way.kept(workdir, "erase"):
            began = UnderWay.read(workdir.under_way)
            while datetime.now(UTC) < began.until:
                pass
            assert UnderWay.read(workdir.under_way).is_live() is alive


def test_a_step_that_fails_or_is_told_to_end_keeps_the_workdir_for_minutes(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was terminated is often submitted again. Control: one that ended well keeps it for its next step, as above."""
    monkeypatch.setenv(KUBEFLOW_RUN, FIRST)
    with pytest.raises(Stopped), under_way.kept(workdir, "erase"):
        raise Stopped("the erasure was terminated")
    assert timedelta(minutes=4) < UnderWay.read(workdir.under_way).until - datetime.now(UTC) <= timedelta(minutes=5)


def test_a_run_here_and_one_on_kubeflow_see_each_other(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    KubeflowRun(FIRST, workdir, 3, monkeypatch).begin()
    with pytest.raises(BadInput, match=f"run {FIRST} has been under way"):
        run(workdir, [ErasureRequest(dataset="digits", label="3")], CONFIG, POLICY)
    workdir.under_way.unlink()
    with exclusive_lock(workdir.root, ""), pytest.raises(SystemExit):
        KubeflowRun(SECOND, workdir, 3, monkeypatch).begin()
    assert not workdir.under_way.exists()


def test_outside_of_kubeflow_nothing_is_written(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KUBEFLOW_RUN, raising=False)
    under_way.take(workdir, "erase")
    with under_way.kept(workdir, "erase"):
        pass
    under_way.release(workdir)
    assert not workdir.under_way.exists()
