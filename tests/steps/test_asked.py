"""The lies of a run that is handed no request: 'nothing is asked', and an outcome that is another run's."""

from __future__ import annotations

import contextlib
import errno
import html
import json
import os
from pathlib import Path

import pytest

from erasediff.attempts.journal import FAILURE
from erasediff.attempts.workdir import Workdir
from erasediff.demo import file_request
from erasediff.errors import BadInput
from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.evidence.ledger import Ledger
from erasediff.progress import FILE_VARIABLE
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, Failure, Outcome, PlanRecord
from erasediff.records.names import names_digest
from erasediff.records.policy import load_policy
from erasediff.records.positions import PositionedRequest
from erasediff.records.requests import Reason
from erasediff.steps.component import Documents, perform_component
from tests.certified import NOON, ROOT
from tests.digits import DIGITS, handed

CONFIG = RunConfig().canonical().decode()
POLICY = load_policy(ROOT / "policies/class-conditional.yaml").canonical().decode()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    new_key(tmp_path / "keys", None, NOON, None)
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(tmp_path / "keys" / PRIVATE))
    return Workdir.open(tmp_path / "work")


def opened(workdir: Workdir, request: str = "", config: str = CONFIG) -> str:
    return perform_component("check_prerequisites", str(workdir.root), documents=Documents(request, config, POLICY)).text


def closed(workdir: Workdir, request: str = "") -> bytes:
    return perform_component("record_outcome", str(workdir.root), documents=Documents(request, CONFIG, POLICY)).report


def test_the_request_that_is_due_first_is_opened_and_gets_the_outcome(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold takes it out of the row: then the next one is. The house has one class at a time erased."""
    monkeypatch.setenv("ERASEDIFF_LEDGER_BATCH", "1")
    asked = [file_request(workdir, ErasureRequest(dataset="digits", label=str(label))) for label in (8, 3)]
    first = opened(workdir)
    assert workdir.attempt(first).plan().request.label == "8"
    assert workdir.attempt(first).plan().batch == ()
    assert closed(workdir) == workdir.report.read_bytes()
    assert Outcome.read(workdir.outcome).forget.label == "8"
    ledger = Ledger.existing(workdir.root)
    ledger.hold(asked[0].id, Reason.LITIGATION, "dpo", max(event.at for event in ledger.events()))
    assert workdir.attempt(opened(workdir)).plan().request.label == "3"


def states(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is announced while a scheduled run opens its attempt."""
    monkeypatch.setenv(FILE_VARIABLE, str(workdir.root / "events"))
    with contextlib.suppress(SystemExit):
        opened(workdir)
    return [json.loads(line)["state"] for line in (workdir.root / "events").read_text().splitlines()]


def test_choosing_a_batch_and_opening_its_attempt_are_announced_as_one_step(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    file_request(workdir, ErasureRequest(dataset="digits", label="8"))
    assert states(workdir, monkeypatch) == ["started", "done"]


def test_a_batch_that_cannot_be_chosen_is_announced_as_a_failure(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASEDIFF_LEDGER", str(workdir.root / "no" / "such" / "place"))
    assert states(workdir, monkeypatch) == ["failed"]
    assert Failure.read(workdir.root / FAILURE).step == "check_prerequisites"


def test_where_nothing_is_asked_there_is_no_attempt_and_no_outcome(workdir: Workdir, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where an earlier run was asked for something by the same documents."""
    assert opened(workdir, handed(5))
    assert closed(workdir, handed(5))
    workdir.outcome.unlink()
    assert opened(workdir) == ""
    assert closed(workdir) == b""
    assert "no open requests for digits" in capsys.readouterr().err
    assert not workdir.outcome.exists()


def test_requests_for_another_dataset_are_not_asked_of_this_one(workdir: Workdir) -> None:
    file_request(workdir, ErasureRequest(dataset="faces", label="1"))
    assert opened(workdir) == ""
    other = json.dumps(json.loads(CONFIG) | {"seed": 1})
    assert opened(workdir, config=other) == "", "control: it is the dataset's name that decides"


def test_a_ledger_that_cannot_be_asked_is_not_nothing(workdir: Workdir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ERASEDIFF_LEDGER", str(workdir.root / "no" / "such" / "place"))
    with pytest.raises(SystemExit) as ended:
        opened(workdir)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("erasediff check-prerequisites (exit code 2): ")


@pytest.mark.parametrize(
    ("pod", "umask", "folder", "file"),
    [(True, 0, 0o770, 0o660), (True, 0o022, 0o770, 0o660), (False, 0o077, 0o700, 0o600), (False, 0o022, 0o755, 0o644)],
)
def test_what_a_step_writes_in_a_pod_is_for_its_group_and_for_nobody_else(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, pod: bool, umask: int, folder: int, file: int
) -> None:
    """Whatever umask it was started with: Kubeflow's launcher sets 0. Control: elsewhere the umask is the user's."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    before = os.umask(umask)
    try:
        attempt = workdir.attempt(opened(workdir, handed(5)))
    finally:
        os.umask(before)
    assert attempt.folder.stat().st_mode & 0o777 == folder
    assert attempt.path(PlanRecord).stat().st_mode & 0o777 == file


def test_the_report_of_a_run_without_an_attempt_says_why(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: an earlier run's report lies in the workdir, and Kubeflow does not get that."""
    workdir.report.write_text("of an earlier run")
    other = PositionedRequest(dataset="digits", position=11, classes_sha256=names_digest(DIGITS)).canonical().decode()
    with pytest.raises(SystemExit):
        opened(workdir, other)
    page = closed(workdir, other).decode()
    assert Outcome.read(workdir.outcome).error.message in html.unescape(page)
    assert "(check-prerequisites) ended with exit code 2" in page


@pytest.mark.parametrize("pod", [True, False])
def test_a_volume_that_the_steps_may_not_write_is_told_with_what_prepares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod: bool) -> None:
    """Control: on a machine of one's own it is a folder's permissions."""

    def refuse(self: Path, data: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(Path, "write_bytes", refuse)
    advice = "create the Job erasediff-prepare-workdir of manifests/once" if pod else "choose another --workdir or change its permissions"
    with pytest.raises(BadInput, match=f"there is no permission to write .*: {advice}"):
        Workdir.open(tmp_path / "work")
