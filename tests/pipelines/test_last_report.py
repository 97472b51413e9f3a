"""The lie: 'there is nothing to report', of a run that could not write its workdir and says so in a log alone."""

from __future__ import annotations

import html
import json
import os
import shutil
from pathlib import Path

import pytest

from components.shapes import component_of
from erasediff.attempts.workdir import Workdir
from erasediff.environment import KUBEFLOW_RUN
from erasediff.records.config import RunConfig
from erasediff.records.policy import load_policy
from erasediff.steps.component import Documents, perform_component
from erasediff.steps.table import Role, step_for
from tests.certified import ROOT
from tests.digits import handed
from tests.pipelines.containers import run_container

ROW = step_for(Role.CLOSES)
REQUEST = handed(3)
CONFIG = RunConfig().canonical().decode()
POLICY = load_policy(ROOT / "policies/class-conditional.yaml").canonical().decode()
VALUES = {"step": ROW.name, "request": REQUEST, "config": CONFIG, "policy": POLICY}
SCHEMA = {"report": "system.HTML"}
RUN = "364ba749-5aef-46b6-be9e-2ec1cee8e9f2"
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", KUBEFLOW_RUN: RUN, "ERASEDIFF_RETRY_MINUTES": "0"}


@pytest.fixture
def bound() -> tuple[str, ...]:
    """Words that run a command so that permissions bind it: root without the right to pass over them; anybody else as they are."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everything, and setpriv is missing: install util-linux")
    return ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    """The folder of the launcher, where the step leaves what it hands over."""
    (tmp_path / "launcher").mkdir()
    return tmp_path / "launcher"


def closed(handed: Path, workdir: Path, environment: dict[str, str], before: tuple[str, ...]) -> tuple[int, list[str], str]:
    """Exit code, log and report of the last step."""
    command = component_of(ROW).component_spec.implementation.container.command
    code, log = run_container(handed, command, "closes", VALUES | {"workdir": str(workdir)}, SCHEMA, environment, before)
    report = handed / "report"
    return code, log, html.unescape(report.read_text()) if report.is_file() else ""


def test_a_volume_that_the_steps_may_not_write_is_told_in_the_report(tmp_path: Path, handed: Path, bound: tuple[str, ...]) -> None:
    """As root:root 0755 is. The step ends well, since Kubeflow's launcher drops what a failed one hands over; the first step has failed before."""
    workdir = tmp_path / "work"
    workdir.mkdir(mode=0o555)
    code, log, report = closed(handed, workdir, POD, bound)
    sentence = f"there is no permission to write {workdir}: create the Job erasediff-prepare-workdir of manifests/once"
    assert code == 0
    assert sentence in report
    assert "(record-outcome) ended with exit code 2" in report
    assert [line for line in log if line.startswith("erasediff record-outcome (exit code 2): ") and sentence in line]
    assert "report" in json.loads((handed / "executor_output.json").read_text())["artifacts"]


def test_a_workdir_that_is_no_folder_is_told_and_outside_kubeflow_the_step_fails(tmp_path: Path, handed: Path) -> None:
    """Control: without a run of Kubeflow nobody knows whether the first step failed, so this one ends as it did."""
    workdir = tmp_path / "work"
    workdir.write_text("")
    code, _, report = closed(handed, workdir, POD, ())
    assert (code, "is not a folder" in report) == (0, True)
    (handed / "report").unlink()
    code, _, report = closed(handed, workdir, {}, ())
    assert (code, report) == (2, "")


def test_a_run_that_opened_an_attempt_does_not_end_well_without_its_outcome(
    tmp_path: Path, handed: Path, bound: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the volume became read-only later, nothing else may have failed. Control: another run's attempt does not count."""
    monkeypatch.setenv(KUBEFLOW_RUN, RUN)
    workdir = tmp_path / "work"
    perform_component("check_prerequisites", str(workdir), documents=Documents(REQUEST, CONFIG, POLICY))
    assert Workdir(workdir).attempts()
    for path in (workdir, *workdir.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert closed(handed, workdir, POD, bound)[0] == 2
    code, _, report = closed(handed, workdir, POD | {KUBEFLOW_RUN: "another"}, bound)
    assert (code, "there is no permission to write" in report) == (0, True)
    for path in (workdir, *workdir.rglob("*")):
        path.chmod(0o755)
