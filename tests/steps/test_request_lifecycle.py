"""The lie: 'this request was answered', of one that was not erased, not approved, held, or answered by another model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.demo import file_request
from erasediff.errors import AwaitingApproval, BadInput, IntegrityError
from erasediff.evidence.keys import PRIVATE, PUBLIC, new_key
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.served_rules import revoke, workdir_rules
from erasediff.evidence.signing import check_can_sign, load_signing_key
from erasediff.records.core import ErasedRecord, ErasureRequest, ExportedRecord, Verdict, VerdictRecord
from erasediff.records.requests import Filing, Reason, Regime, State, Terms
from erasediff.records.serving import ServingRules
from erasediff.records.settings import RollOutSettings, SigningSettings
from erasediff.steps.perform import open_attempt
from erasediff.steps.request_lifecycle import (
    answered_requests,
    begin_purge,
    check_approved,
    finish_purge,
    give_approval,
    mark_certified,
    move_requests,
    take_requests,
    unanswered_in_words,
)
from erasediff.steps.table import step_named
from tests.certified import REQUEST, promoted_run
from tests.issuer import issuer


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, tiny_unet: Callable[..., torch.nn.Module]) -> Attempt:
    """An attempt with all its records; not to be changed."""
    return promoted_run(tmp_path_factory.mktemp("promoted") / "work", tiny_unet)


@pytest.fixture
def run(promoted: Attempt, tmp_path: Path) -> Attempt:
    """A copy of it, whose steps are followed as if they ended one after another."""
    shutil.copytree(promoted.workdir.root, tmp_path / "work")
    return Workdir.open(tmp_path / "work").attempt(promoted.name)


@pytest.fixture
def ledger(run: Attempt) -> Ledger:
    return Ledger.open(run.workdir.root)


ROAD = ((State.RECEIVED, State.VERIFIED), (State.VERIFIED, State.LOCATED), (State.LOCATED, State.ACCEPTED))


def now() -> datetime:
    return datetime.now(UTC)


def state(ledger: Ledger, request: str) -> State:
    return ledger.facts(request).state


def filed(run: Attempt, label: int = REQUEST.label) -> str:
    return file_request(run.workdir, ErasureRequest(dataset=REQUEST.dataset, label=str(label))).id


def through(run: Attempt, *steps: str) -> None:
    for name in steps:
        move_requests(run, step_named(name))


def test_a_request_goes_the_whole_way_and_twice_is_once(run: Attempt, ledger: Ledger) -> None:
    asked = filed(run)
    for _ in range(2):
        take_requests(run)
        through(run, "train_base", "version_forget_set", "erase", "evaluate", "gate", "export_onnx", "register", "roll_out", "promote")
    assert state(ledger, asked) is State.ROLLED_OUT
    for _ in range(2):
        assert begin_purge(run) == (asked,)
    assert state(ledger, asked) is State.PURGING
    finish_purge(run, run.need(ErasedRecord))
    mark_certified(run, run.need(ErasedRecord))
    assert state(ledger, asked) is State.CERTIFIED
    assert [facts.id for facts in answered_requests(run)] == [asked]
    assert ledger.verify().holds


def test_a_label_is_suppressed_when_its_request_is_taken_and_what_was_revoked_stays_so(run: Attempt, ledger: Ledger) -> None:
    """A server that is given the file refuses the label; control: nothing is suppressed while the request is not decided."""
    revoke(run.workdir, ["a" * 64], RollOutSettings())
    asked = filed(run)
    assert workdir_rules(run.workdir).suppress == ()
    take_requests(run)
    assert workdir_rules(run.workdir) == ServingRules(revoked=("a" * 64,), suppress=(REQUEST.label,))
    assert state(ledger, asked) is State.BATCHED


def test_without_a_ledger_an_attempt_answers_nobody_and_makes_none(run: Attempt) -> None:
    take_requests(run)
    through(run, "erase", "gate", "promote")
    assert (answered_requests(run), begin_purge(run)) == ((), ())
    assert not (run.workdir.root / "ledger.db").exists()


def test_requests_for_another_class_and_undecided_ones_stay_where_they_are(run: Attempt, ledger: Ledger) -> None:
    other, undecided = filed(run, label=3), ledger.file(Filing(regime=Regime.GDPR, scope="class", erasure=REQUEST), "desk-1", now()).id
    take_requests(run)
    through(run, "erase")
    assert (state(ledger, other), state(ledger, undecided)) == (State.ACCEPTED, State.RECEIVED)
    assert answered_requests(run) == ()


def test_a_run_says_which_open_requests_it_leaves(run: Attempt, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Of any class of its dataset, and in any state before the erasure. Control: of requests that it takes or that are refused, it says nothing."""
    taken = filed(run)
    take_requests(run)
    assert unanswered_in_words(run) is None
    refused = ledger.file(Filing(regime=Regime.GDPR, scope="class", erasure=REQUEST), "desk-1", now()).id
    assert "(1 RECEIVED)" in str(unanswered_in_words(run))
    filed(run, label=3)
    held = filed(run, label=4)
    ledger.hold(held, Reason.LITIGATION, "desk-1", now())
    file_request(run.workdir, ErasureRequest(dataset="faces", label="3"))
    assert "requests for digits unanswered (1 ACCEPTED, 1 RECEIVED, 1 held)" in str(unanswered_in_words(run))
    for before, after in ROAD[:2]:
        ledger.advance(refused, before, after, "desk-1", now())
    ledger.refuse(refused, Reason.UNFOUNDED, "desk-1", now())
    assert "(1 ACCEPTED, 1 held)" in str(unanswered_in_words(run))
    assert state(ledger, taken) is State.BATCHED

    begun = open_attempt(run.workdir, (ErasureRequest(dataset="digits", label="5"),), run.config(), run.policy())
    assert "(1 ACCEPTED, 1 BATCHED, 1 held): `erasediff process`" in capsys.readouterr().err
    assert answered_requests(begun) == ()


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_a_model_that_did_not_pass_sends_its_requests_back(run: Attempt, ledger: Ledger, verdict: Verdict) -> None:
    asked = filed(run)
    take_requests(run)
    through(run, "erase")
    run.need(VerdictRecord).model_copy(update={"verdict": verdict}).write(run.path(VerdictRecord))
    through(run, "gate")
    assert (state(ledger, asked), answered_requests(run)) == (State.SUPPRESSED, ())


def test_a_graph_that_did_not_pass_sends_them_back_too(run: Attempt, ledger: Ledger) -> None:
    asked = filed(run)
    take_requests(run)
    run.need(ExportedRecord).model_copy(update={"verdict": Verdict.FAIL}).write(run.path(ExportedRecord))
    through(run, "erase", "gate", "export_onnx")
    assert state(ledger, asked) is State.SUPPRESSED


def test_what_an_earlier_attempt_left_is_taken_by_the_next_and_by_that_alone(run: Attempt, ledger: Ledger) -> None:
    asked = filed(run)
    take_requests(run)
    through(run, "erase", "gate")
    later = run.workdir.open_attempt(run.plan().model_copy(update={"run": "later", "attempt": 2}), run.config(), run.policy(), b"k" * 32)
    take_requests(later)
    assert (state(ledger, asked), answered_requests(run)) == (State.BATCHED, ())
    assert [facts.id for facts in answered_requests(later)] == [asked]
    through(run, "promote")
    assert state(ledger, asked) is State.BATCHED, "the attempt that lost it cannot fulfil it"


def test_a_request_for_a_class_that_is_gone_is_answered_by_the_run_that_erased_it(run: Attempt, ledger: Ledger) -> None:
    """Without a request before it, and with one that is certified already."""
    for regime in (Regime.GDPR, Regime.CCPA):
        asked = ledger.file(Filing(regime=regime, scope="class", erasure=REQUEST), "desk-1", now()).id
        for before, after in ROAD:
            ledger.advance(asked, before, after, "desk-1", now())
        take_requests(run)
        through(run, "erase", "gate", "promote")
        assert asked in begin_purge(run)
        finish_purge(run, run.need(ErasedRecord))
        mark_certified(run, run.need(ErasedRecord))
        assert state(ledger, asked) is State.CERTIFIED
    assert len(answered_requests(run)) == 2


def test_a_legal_hold_stops_the_purge_for_all_and_a_held_request_is_not_taken(run: Attempt, ledger: Ledger) -> None:
    asked = filed(run)
    ledger.hold(asked, Reason.LITIGATION, "desk-1", now())
    take_requests(run)
    assert state(ledger, asked) is State.ACCEPTED
    ledger.release(asked, Reason.LITIGATION, "desk-1", now())
    take_requests(run)
    through(run, "erase", "gate", "promote")
    ledger.hold(asked, Reason.AUDIT, "desk-1", now())
    with pytest.raises(BadInput, match="legal hold"):
        begin_purge(run)
    assert state(ledger, asked) is State.ROLLED_OUT


def test_without_a_key_no_run_begins_and_with_one_that_has_ended_nothing_is_begun_or_promoted(
    run: Attempt, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a request waits or not: what is exported is signed. Controls: a good key, and in a pod one that other steps mount."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yesterday = now().replace(microsecond=0) - timedelta(days=1)
    new_key(tmp_path / "ended", None, yesterday, yesterday + timedelta(hours=1))
    ended, good = str(tmp_path / "ended" / PRIVATE), str(issuer() / PRIVATE)
    asked = filed(run)

    def begin(label: str) -> Attempt:
        return open_attempt(run.workdir, (ErasureRequest(dataset="digits", label=label),), run.config(), run.policy(), f"later-{label}")

    monkeypatch.delenv("ERASEDIFF_SIGNING_KEY")
    for label in (REQUEST.label, "3"):
        with pytest.raises(BadInput, match="keys new"):
            begin(label)
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", ended)
    with pytest.raises(BadInput, match="expired at"):
        begin(REQUEST.label)
    empty = tmp_path / "empty.pem"
    empty.touch(mode=0o600)
    for wrong, sentence in ((tmp_path / "nowhere.pem", "does not exist"), (empty, "is not a private key in PEM")):
        monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(wrong))
        with pytest.raises(BadInput, match=sentence):
            begin(REQUEST.label)
    with monkeypatch.context() as pod:
        pod.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        check_can_sign(SigningSettings(key="/signing/signing-key.pem"), now())
    assert state(ledger, asked) is State.ACCEPTED
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", good)
    begin("3")
    assert [folder.name for folder in run.workdir.runs.glob("later-*")] == ["later-3"], "control"
    take_requests(run)
    through(run, "erase", "gate")
    check_approved(run)
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", ended)
    with pytest.raises(BadInput, match=rf"request {asked} is owed a certificate, and the key .* expired at"):
        check_approved(run)


class House:
    """A house that asks for two approvals."""

    def __init__(self, run: Attempt, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.run, self.folder = run, folder
        patch.setenv("ERASEDIFF_LEDGER_APPROVALS", "2")
        patch.setenv("ERASEDIFF_LEDGER_APPROVERS", str(folder))
        self.request = filed(run)
        take_requests(run)
        through(run, "erase", "gate")

    def officer(self, name: str, listed: bool = True) -> None:
        new_key(self.folder / f"of-{name}", None, now(), None)
        if listed:
            (self.folder / f"{name}.pub").write_bytes((self.folder / f"of-{name}" / PUBLIC).read_bytes())

    def approve(self, name: str, key_of: str | None = None) -> None:
        settings = SigningSettings(key=str(self.folder / f"of-{key_of or name}" / PRIVATE))
        give_approval(self.run.workdir, self.request, name, load_signing_key(settings, now()))


@pytest.fixture
def house(run: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(run, tmp_path, monkeypatch)


def test_nothing_is_rolled_out_before_two_others_have_approved(run: Attempt, house: House) -> None:
    house.officer("officer-1")
    house.officer("officer-2")
    for name, others in (("officer-1", 0), ("officer-2", 1)):
        with pytest.raises(AwaitingApproval, match=f"2 approvals and has {others}"):
            check_approved(run)
        with pytest.raises(AwaitingApproval):
            through(run, "promote")
        house.approve(name)
    check_approved(run)
    through(run, "promote")
    assert state(Ledger.open(run.workdir.root, Terms(approvals=2)), house.request) is State.ROLLED_OUT


def test_only_those_whom_the_house_has_named_approve_each_once_and_not_what_they_filed(house: House) -> None:
    house.officer("officer-1")
    house.officer("stranger", listed=False)
    house.officer("demo")
    with pytest.raises(BadInput, match="not among the approvers"):
        house.approve("stranger")
    with pytest.raises(BadInput, match="signed by the key"):
        house.approve("officer-1", key_of="stranger")
    with pytest.raises(BadInput, match="filed"):
        house.approve("demo")
    house.approve("officer-1")
    with pytest.raises(BadInput, match="another person"):
        house.approve("officer-1")


def test_an_approval_is_of_one_model_alone(run: Attempt, house: House) -> None:
    for name in ("officer-1", "officer-2"):
        house.officer(name)
        house.approve(name)
    check_approved(run)
    verdict = run.need(VerdictRecord)
    verdict.model_copy(update={"alpha_spent": verdict.alpha_spent / 2}).write(run.path(VerdictRecord))
    with pytest.raises(IntegrityError, match="approval by"):
        check_approved(run)
