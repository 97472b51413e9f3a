"""The lies of a run that is handed no request: 'nothing is asked', and an outcome that is another run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erasediff.demo import file_request
from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.evidence.ledger import Ledger
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ErasureRequest, Outcome
from erasediff.records.policy import load_policy
from erasediff.records.requests import Reason
from erasediff.records.workdir import Workdir
from erasediff.steps.runner import open_main, outcome_main
from tests.certified import NOON, ROOT

CONFIG = RunConfig().canonical().decode()
POLICY = load_policy(ROOT / "policies/class-conditional.yaml").canonical().decode()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    new_key(tmp_path / "keys", None, NOON, None)
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(tmp_path / "keys" / PRIVATE))
    return Workdir.open(tmp_path / "work")


def opened(workdir: Workdir, request: str = "") -> str:
    return open_main(str(workdir.root), request, CONFIG, POLICY)


def test_the_request_that_is_due_first_is_opened_and_gets_the_outcome(workdir: Workdir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold takes it out of the row: then the next one is. The house has one class at a time erased."""
    monkeypatch.setenv("ERASEDIFF_LEDGER_BATCH", "1")
    asked = [file_request(workdir, ErasureRequest(dataset="digits", label=label)) for label in (8, 3)]
    first = opened(workdir)
    assert workdir.run(first).plan().request.label == 8
    assert workdir.run(first).plan().batch == ()
    outcome_main(str(workdir.root), "", CONFIG, POLICY, str(tmp_path / "shown.html"))
    assert Outcome.read(workdir.outcome).forget.label == 8
    assert (tmp_path / "shown.html").is_file()
    ledger = Ledger.existing(workdir.root)
    ledger.hold(asked[0].id, Reason.LITIGATION, "dpo", max(event.at for event in ledger.events()))
    assert workdir.run(opened(workdir)).plan().request.label == 3


def test_where_nothing_is_asked_there_is_no_attempt_and_no_outcome(workdir: Workdir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where an earlier run was asked for something by the same documents."""
    handed = ErasureRequest(dataset="digits", label=5).canonical().decode()
    assert opened(workdir, handed)
    outcome_main(str(workdir.root), handed, CONFIG, POLICY, str(tmp_path / "shown.html"))
    workdir.outcome.unlink()
    (tmp_path / "shown.html").unlink()
    assert opened(workdir) == ""
    outcome_main(str(workdir.root), "", CONFIG, POLICY, str(tmp_path / "shown.html"))
    assert "nothing is asked of digits" in capsys.readouterr().out
    assert not workdir.outcome.exists()
    assert not (tmp_path / "shown.html").exists()


def test_requests_for_another_dataset_are_not_asked_of_this_one(workdir: Workdir) -> None:
    file_request(workdir, ErasureRequest(dataset="faces", label=1))
    assert opened(workdir) == ""
    other = json.dumps(json.loads(CONFIG) | {"seed": 1})
    assert open_main(str(workdir.root), "", other, POLICY) == "", "control: it is the dataset's name that decides"


def test_a_ledger_that_cannot_be_asked_is_not_nothing(workdir: Workdir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ERASEDIFF_LEDGER", str(workdir.root / "no" / "such" / "place"))
    with pytest.raises(SystemExit) as ended:
        opened(workdir)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("erasediff check_prerequisites: ")
