"""The lie: a run that ended 'the server does not answer', when it was the purge that is unfinished."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasediff import runner
from erasediff.attempts.attempt import Attempt
from erasediff.attempts.journal import failure_recorded
from erasediff.attempts.workdir import Workdir
from erasediff.errors import ExitCode, PurgeUnfinished, Unreachable
from erasediff.records.config import RunConfig
from erasediff.records.core import Outcome
from erasediff.records.policy import load_policy
from erasediff.steps.table import Step
from tests.certified import REQUEST, ROOT


def run_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """A run whose first step after the prerequisites fails when MLflow goes away, so that its outcome cannot be stored there either."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def fail(row: Step, attempt: Attempt) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with failure_recorded(row.name, attempt.folder):
            raise PurgeUnfinished("the purge is not finished: run the same command again.")

    monkeypatch.setattr(runner, "perform_batch", fail)
    return runner.run(Workdir.open(folder), (REQUEST,), RunConfig(), load_policy(ROOT / "policies/class-conditional.yaml"))


def test_what_ended_the_run_counts_and_not_that_its_report_could_not_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_that_fails(tmp_path / "work", monkeypatch)
    assert runner.exit_code(outcome) is ExitCode.UNFINISHED
    assert "MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err, "control: the report was not stored"


def test_a_success_whose_report_could_not_be_stored_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "exit_code", lambda outcome: ExitCode.OK)
    with pytest.raises(Unreachable):
        run_that_fails(tmp_path / "work", monkeypatch)
