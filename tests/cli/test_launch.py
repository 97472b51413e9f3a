"""What an outcome means as an exit code, and how a run's progress reaches the terminal."""

import json

import pytest

from erasediff.errors import ExitCode
from erasediff.launch import exit_code, shipped
from erasediff.progress import FILE_VARIABLE, announce, progress
from erasediff.records.nouns import ChampionOutcome, Failure, ForgetOutcome, Outcome

CHAMPION = ChampionOutcome(name="digits", version="2", weights_sha256="0" * 64, onnx_sha256="0" * 64)


def outcome(verdict=None, champion=None, error=None):
    forget = ForgetOutcome(label=0, n=None, detections=None, upper=None)
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
    assert events[0] == {"step": "erase", "state": "started", "seconds": 0.0, "of": ""}
    assert events[-1] == {"what": "erasing", "done": 3, "total": 3}


def test_progress_without_a_watcher_and_without_a_terminal_is_silent(capsys, monkeypatch):
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    with progress("erasing", 1) as done:
        done(1)
    assert capsys.readouterr() == ("", "")
