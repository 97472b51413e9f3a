"""What an outcome means as an exit code, and how a run's progress reaches the terminal."""

import contextlib
import io
import json
import subprocess
import sys

import pytest

from erasediff.cli import main
from erasediff.display import display
from erasediff.errors import ExitCode
from erasediff.files import shipped
from erasediff.progress import FILE_VARIABLE, announce, progress, shown_by
from erasediff.records.core import ChampionOutcome, Failure, ForgetOutcome, Outcome
from erasediff.runner import exit_code

CHAMPION = ChampionOutcome(name="digits", version="2", weights_sha256="0" * 64, onnx_sha256="0" * 64)


def outcome(verdict=None, champion=None, error=None):
    forget = ForgetOutcome(label="0", n=None, detections=None, upper=None)
    return Outcome(verdict=verdict, attempt=1, forget=forget, retain=None, champion=champion, forget_set=None, report=None, seconds={}, error=error)


def failure(code):
    return Failure(step="erase", message="why", exit_code=code)


@pytest.mark.parametrize(
    ("came_out", "code"),
    [
        (outcome("PASS", CHAMPION), ExitCode.OK),
        (outcome("FAIL"), ExitCode.GATE_FAIL),
        (outcome("INCONCLUSIVE"), ExitCode.GATE_INCONCLUSIVE),
        (outcome(error=failure(2)), ExitCode.BAD_INPUT),
        (outcome(error=failure(1)), ExitCode.UNEXPECTED),
        (outcome(error=failure(77)), ExitCode.UNEXPECTED),
        (outcome("PASS", error=failure(2)), ExitCode.BAD_INPUT),
        (outcome("PASS"), ExitCode.UNEXPECTED),
        (outcome(), ExitCode.UNEXPECTED),
    ],
)
def test_only_a_promoted_champion_is_success(came_out, code):
    """A PASS that was never promoted must not look like success to a scheduler."""
    assert exit_code(came_out) is code


def test_the_pipeline_and_the_policy_are_found():
    assert shipped("pipelines/compiled/erasure.yaml").is_file()
    assert shipped("policies/class-conditional.yaml").is_file()


def test_progress_goes_to_the_file_of_whoever_watches(tmp_path, monkeypatch):
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "events"))
    announce("erase", "started", 0.0)
    with progress("erasing", 3) as done:
        for k in range(1, 4):
            done(k)
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert events[0] == {"step": "erase", "state": "started", "seconds": 0.0, "of": "", "attempt": ""}
    assert events[-1] == {"what": "erasing", "done": 3, "total": 3}


def test_work_that_ends_early_is_told_as_ended(tmp_path, monkeypatch):
    """Else a log would go on saying how far it is. Control: work that fails has no such end."""
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "events"))
    with progress("erasing", 40) as done:
        done(7)
    with contextlib.suppress(ValueError), progress("sampling", 40) as done:
        done(7)
        raise ValueError
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [(event["done"], event["total"]) for event in events] == [(0, 40), (7, 40), (7, 7), (0, 40), (7, 40)]


def test_a_run_without_a_terminal_is_two_lines_a_step():
    said = io.StringIO()
    with display(said) as viewer, shown_by(viewer):
        announce("erase", "started", of="class 3", attempt="a1")
        with progress("erasing", 1) as done:
            done(1)
        announce("erase", "done", 2.0, of="class 3", attempt="a1", result="steps 60", digest="0123456789abcdef")
    lines = [line.partition(" ")[2] for line in said.getvalue().splitlines()]
    assert lines == ["Erase, class 3: begins, attempt a1", "Erase, class 3: done in 2.0 s: steps 60; record 0123456789ab"]


def test_what_libraries_print_goes_to_the_log_and_the_display_to_the_terminal(tmp_path):
    """Also what is written past Python. Control: afterwards both are as before."""
    code = f"""
import os, pathlib
from erasediff.display import output_into
with output_into(pathlib.Path({str(tmp_path / "log")!r})) as terminal:
    print("a library")
    os.write(2, b"in C")
    print("a step", file=terminal)
print("afterwards")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("a step\nafterwards\n", "")
    assert sorted((tmp_path / "log").read_text()) == sorted("a library\nin C")


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    """Control: without it the same command fails of what is wrong."""

    def stop(*_):
        raise KeyboardInterrupt

    arguments = ["run", "--forget-label", "0", "--workdir", str(tmp_path / "work")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(arguments) == 2
    capsys.readouterr()
    monkeypatch.setattr("erasediff.runner.open_attempt", stop)
    assert main(arguments) == 130
    assert capsys.readouterr().err == "erasediff: stopped: the work so far is kept, and the same command continues it.\n"
