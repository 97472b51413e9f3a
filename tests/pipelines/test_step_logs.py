"""The lie: 'it is not written anywhere', of a configuration that stands in the log of every step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.shapes import component_of
from erasediff.attempts.workdir import Workdir
from erasediff.evidence.keys import PRIVATE
from erasediff.logs import last_words
from erasediff.records.config import RunConfig
from erasediff.records.policy import load_policy
from erasediff.steps.table import Role, step_for
from tests.certified import ROOT
from tests.digits import handed
from tests.issuer import issuer
from tests.pipelines.containers import run_container

ROW = step_for(Role.OPENS)
CONFIG = RunConfig(seed=90125)
SECRET = "not-for-logs"
SIZE = {"training_cpu": "1", "training_memory": "2Gi", "training_gpus": "0"}


def log_of(folder: Path, command: list[str], workdir: Path, request: str, form: str) -> tuple[int, list[str]]:
    """Exit code and log of the step's container, whose command it is."""
    policy = load_policy(ROOT / "policies/class-conditional.yaml").canonical().decode()
    values = {
        "step": ROW.name,
        "workdir": str(workdir),
        "request": request,
        "config": CONFIG.canonical().decode(),
        "policy": policy,
        "if_busy": "fail",
        **SIZE,
    }
    variables = {"ERASEDIFF_LOG": form, "ERASEDIFF_LOG_SECONDS": "600", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET}
    variables |= {"ERASEDIFF_SIGNING_KEY": str(issuer() / PRIVATE)}
    return run_container(folder, command, "opens", values, environment=variables)


@pytest.fixture(scope="module")
def command() -> list[str]:
    return list(component_of(ROW).component_spec.implementation.container.command)


@pytest.fixture
def request_text() -> str:
    return handed(3)


def test_a_step_tells_its_beginning_and_end_and_no_input(tmp_path: Path, command: list[str], request_text: str) -> None:
    """In the container's own command, for a collector. Control: kfp's executor, started as kfp starts it, logs all inputs."""
    code, lines = log_of(tmp_path, command, tmp_path / "work", request_text, "json")
    assert code == 0
    began, ended = (json.loads(line) for line in lines)
    assert (began["step"], began["state"], began["of"]) == (ROW.name, "started", "1 of the classes of digits")
    assert (ended["state"], ended["result"]) == ("done", f"attempt {Workdir(tmp_path / 'work').attempt().name}")
    assert len(ended["digest"]) == 12
    assert not [line for line in lines if str(CONFIG.seed) in line or SECRET in line]
    kfps = [part.replace(_between(part), "-m kfp.dsl.executor_main") if "executor_main" in part else part for part in command]
    _, told = log_of(tmp_path, kfps, tmp_path / "work", request_text, "text")
    assert [line for line in told if str(CONFIG.seed) in line], "control"


def _between(part: str) -> str:
    """The words by which the shell starts Python's code."""
    return part[part.index("-c '") : part.index("' ", part.index("-c '")) + 1]


def test_a_step_that_fails_says_so_in_the_same_form(tmp_path: Path, command: list[str]) -> None:
    """Errors come through, with the exit code; also those of kfp's executor, as a traceback."""
    other = handed(3).replace('"position":3', '"position":11')
    code, lines = log_of(tmp_path, command, tmp_path / "work", other, "json")
    assert code == 2
    levels = [json.loads(line)["level"] for line in lines]
    assert levels == ["ERROR", "ERROR"]
    said = last_words("\n".join([*lines, "F1127 15:06:10.9 1 main.go:49] failed to execute component: exit status 2"]))
    assert said is not None
    assert (said.command, said.exit_code, str(said)) == (ROW.command, code, json.loads(lines[-1])["message"])
    code, lines = log_of(tmp_path, [*command, "--component_module_path", "/nonexistent.py"], tmp_path / "work", other, "json")
    assert code == 1
    assert lines[-1].startswith("FileNotFoundError")
