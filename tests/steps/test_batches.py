"""The lies of a batch: 'they were erased together', of one that is left out, or one that is let through on another's verdict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of, others_of
from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import ImageDataset
from erasediff.data.rows import write_rows
from erasediff.data.twins import split_apart
from erasediff.demo import file_request
from erasediff.errors import BadInput, EraseDiffError
from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.evidence.ledger import Ledger
from erasediff.files import sha256_file
from erasediff.records.config import RunConfig
from erasediff.records.core import (
    BaseRecord,
    ErasedRecord,
    ErasureRequest,
    ExportedRecord,
    Outcome,
    RegisteredRecord,
    RollOutRecord,
    Verdict,
    VerdictRecord,
)
from erasediff.records.policy import load_policy
from erasediff.records.positions import positioned_requests
from erasediff.records.requests import Filing, Reason, Regime, Scope, State
from erasediff.steps import perform as perform_module
from erasediff.steps.batches import next_batch, sent_back_with_batch
from erasediff.steps.component import Documents, TakenRequests, perform_component
from erasediff.steps.perform import open_attempt, perform, perform_batch, send_back_passed
from erasediff.steps.request_lifecycle import answered_requests, begin_purge, finish_purge, mark_certified, move_requests, take_requests
from erasediff.steps.table import Step, step_named
from tests.certified import NOON, QUICK, REQUEST, ROOT, promoted_run
from tests.digits import DIGITS, handed

CONFIG, POLICY = RunConfig(), load_policy(ROOT / "policies/class-conditional.yaml")
ROAD = ((State.RECEIVED, State.VERIFIED), (State.VERIFIED, State.LOCATED), (State.LOCATED, State.ACCEPTED))


def digit(label: int) -> ErasureRequest:
    return ErasureRequest(dataset="digits", label=str(label))


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    new_key(tmp_path / "keys", None, NOON, None)
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(tmp_path / "keys" / PRIVATE))
    return Workdir.open(tmp_path / "work")


@pytest.fixture
def ledger(workdir: Workdir) -> Ledger:
    return Ledger.open(workdir.root)


def filed(workdir: Workdir, *labels: int) -> list[str]:
    return [file_request(workdir, digit(label)).id for label in labels]


def positions(text: str) -> list[int]:
    return [request.position for request in positioned_requests(text)]


def labels(batch: tuple[ErasureRequest, ...]) -> list[int]:
    return [int(request.label) for request in batch]


def opened(workdir: Workdir, batch: tuple[ErasureRequest, ...]) -> Attempt:
    return open_attempt(workdir, batch, CONFIG, POLICY)


def judged(run: Attempt, verdict: Verdict = Verdict.PASS) -> None:
    """An attempt as far as its gate, whose steps are followed as if they had been run."""
    erased = {"steps": 1, "forward_passes": 1, "backward_passes": 1, "ema_base_share": 0.0, "curves": {"uri": "c", "sha256": "1" * 64}}
    model = {"dataset": "digits", "class_names": DIGITS, "weights": {"uri": "w", "sha256": "2" * 64}, "folder_sha256": "3" * 64}
    ErasedRecord.model_validate(erased | {"model": model}).write(run.path(ErasedRecord))
    VerdictRecord.read(QUICK / "verdict.json").model_copy(update={"verdict": verdict}).write(run.path(VerdictRecord))
    for name in ("erase", "gate"):
        move_requests(run, step_named(name))


def input_digests(lead: Attempt, name: str) -> None:
    """A step has decided for the whole batch."""
    kind = step_named(name).makes
    assert kind is not None
    send_back_passed({one: one.need(kind) for one in batch_of(lead)})


def test_what_waits_is_one_batch_the_earliest_due_first_and_nothing_that_is_held(workdir: Workdir, ledger: Ledger) -> None:
    """Control: it is no batch of another dataset's, and the house may have fewer erased at once."""
    asked = filed(workdir, 7, 3, 5)
    now = datetime.now(UTC)
    soon = ledger.file(Filing(regime=Regime.GDPR, scope="class", erasure=digit(1)), "desk-1", now, now - timedelta(days=20)).id
    assert labels(next_batch(workdir, "digits")) == [7, 3, 5], "it is not decided"
    for before, after in ROAD:
        ledger.advance(soon, before, after, "desk-1", datetime.now(UTC))
    ledger.hold(asked[1], Reason.AUDIT, "desk-1", datetime.now(UTC))
    assert labels(next_batch(workdir, "digits")) == [1, 7, 5]
    assert next_batch(workdir, "faces") == ()
    assert labels(next_batch(workdir, "digits", {digit(1)})) == [7, 5]


def test_the_house_says_how_many_classes_one_run_may_erase(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    filed(workdir, 7, 3, 5)
    monkeypatch.setenv("ERASEDIFF_LEDGER_BATCH", "2")
    assert labels(next_batch(workdir, "digits")) == [7, 3]


@pytest.mark.parametrize("scope", ["concept", "instance", "class"])
def test_no_erasure_of_a_class_answers_a_request_for_something_else(workdir: Workdir, ledger: Ledger, scope: Scope) -> None:
    """In a ledger of before they were refused. Control: the class itself."""
    asked = Filing(regime=Regime.OWN, scope=scope, erasure=digit(3), commitments=("1" * 64,) if scope == "instance" else ())
    request = ledger.file(asked, "desk", datetime.now(UTC))
    for before, after in ROAD:
        ledger.advance(request.id, before, after, "desk", datetime.now(UTC))
    of_its_class = scope == "class"
    assert labels(next_batch(workdir, "digits")) == ([3] if of_its_class else [])
    run = opened(workdir, (digit(3),))
    assert [facts.id for facts in answered_requests(run)] == ([request.id] if of_its_class else [])
    assert ledger.facts(request.id).state == ("BATCHED" if of_its_class else "ACCEPTED")


def test_an_attempt_a_class_is_opened_and_each_takes_its_own_request(workdir: Workdir, ledger: Ledger) -> None:
    asked = filed(workdir, 7, 3)
    lead = opened(workdir, next_batch(workdir, "digits"))
    assert [one.plan().position for one in batch_of(lead)] == [7, 3]
    assert [[facts.id for facts in answered_requests(one)] for one in batch_of(lead)] == [[asked[0]], [asked[1]]]
    assert {ledger.facts(one).state for one in asked} == {State.BATCHED}
    assert workdir.attempt() == lead
    assert len({one.plan().seed_commitment for one in batch_of(lead)}) == 2, "each is judged by images of its own"


def test_the_same_batch_is_taken_up_again_and_another_is_another(workdir: Workdir) -> None:
    filed(workdir, 7, 3)
    batch = next_batch(workdir, "digits")
    lead = opened(workdir, batch)
    assert labels(next_batch(workdir, "digits")) == [7, 3], "it is under way"
    assert opened(workdir, batch) == lead
    assert opened(workdir, batch[::-1]) == lead, "whatever is due first by now"
    alone = opened(workdir, batch[1:])
    assert (alone.plan().batch, alone.plan().attempt) == ((), 2)


def test_a_batch_of_which_one_attempt_was_never_opened_is_opened_anew(workdir: Workdir) -> None:
    """A kill between the two plans: the first attempt's is written last."""
    batch = (digit(7), digit(3))
    lead = opened(workdir, batch)
    (lead.folder / "plan.json").unlink()
    again = opened(workdir, batch)
    assert [one.plan().request for one in batch_of(again)] == list(batch)
    assert others_of(again)[0] != others_of(lead)


def test_what_fails_holds_itself_back_and_the_others_go_again_without_it(workdir: Workdir, ledger: Ledger) -> None:
    seven, three, five = filed(workdir, 7, 3, 5)
    lead = opened(workdir, next_batch(workdir, "digits"))
    for one, verdict in zip(batch_of(lead), (Verdict.PASS, Verdict.FAIL, Verdict.PASS), strict=True):
        judged(one, verdict)
    assert ledger.facts(seven).state is State.GATED, "control: its own gate has passed it"
    input_digests(lead, "gate")
    assert {ledger.facts(one).state for one in (seven, three, five)} == {State.SUPPRESSED}
    batch = tuple(one.plan().request for one in batch_of(lead))
    assert sent_back_with_batch(workdir, batch) == {digit(7), digit(5)}
    assert labels(next_batch(workdir, "digits")) == [7, 5]
    rest = opened(workdir, next_batch(workdir, "digits"))
    for one in batch_of(rest):
        judged(one)
    input_digests(rest, "gate")
    assert {ledger.facts(one).state for one in (seven, five)} == {State.GATED}
    assert labels(next_batch(workdir, "digits", {digit(7), digit(5)})) == [3], "it goes alone, after the others"
    assert ledger.verify().holds


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_nobody_has_a_model_of_which_a_graph_has_not_passed(workdir: Workdir, ledger: Ledger, verdict: Verdict) -> None:
    asked = filed(workdir, 7, 3)
    lead = opened(workdir, next_batch(workdir, "digits"))
    exported = ExportedRecord.read(QUICK / "exported.json")
    for one, said in zip(batch_of(lead), (Verdict.PASS, verdict), strict=True):
        judged(one)
        exported.model_copy(update={"verdict": said}).write(one.path(ExportedRecord))
        move_requests(one, step_named("export_onnx"))
    input_digests(lead, "export_onnx")
    assert {ledger.facts(one).state for one in asked} == {State.SUPPRESSED}
    assert labels(next_batch(workdir, "digits")) == [7]


def test_an_outcome_says_whose_failure_it_was(workdir: Workdir, tmp_path: Path) -> None:
    """Of the class that passed, and of the one that did not."""
    filed(workdir, 7, 3)
    lead = opened(workdir, next_batch(workdir, "digits"))
    judged(lead)
    judged(others_of(lead)[0], Verdict.INCONCLUSIVE)
    input_digests(lead, "gate")
    for one in batch_of(lead):
        one.path(ErasedRecord).unlink()  # its curves are not there
    documents = Documents(handed(7, 3), CONFIG.canonical().decode(), POLICY.canonical().decode())
    TakenRequests(handed=documents.request, requests=(digit(7), digit(3))).write(workdir.batch_file)
    perform_component("record_outcome", str(workdir.root), documents=documents)
    first, other = Outcome.read(workdir.outcome), Outcome.read(others_of(lead)[0].folder / "outcome.json")
    assert (first.verdict, first.champion, other.verdict, other.error) == (None, None, "INCONCLUSIVE", None)
    assert first.error is not None
    assert "class at position 3, which was erased in the same run, ended INCONCLUSIVE" in first.error.message
    assert first.error.exit_code == 11


def test_documents_name_one_request_or_several_of_one_dataset() -> None:
    assert positions(handed(7)) == [7]
    assert positions(handed(7, 3)) == [7, 3]
    assert positions(f"[{handed(7)}, {handed(7)}]") == [7]
    for wrong in ("", "[]", "[1]", "{", f"[{handed(7)}, {handed(1).replace('digits', 'faces')}]"):
        with pytest.raises(BadInput):
            positioned_requests(wrong)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [((7, 11), "class 11 is not in dataset"), (tuple(range(10)), "nothing would be retained"), ((7,), None)],
)
def test_a_batch_that_cannot_be_erased_opens_nothing(workdir: Workdir, asked: tuple[int, ...], sentence: str | None) -> None:
    batch = tuple(digit(label) for label in asked)
    if sentence is None:
        assert opened(workdir, batch).name
        return
    with pytest.raises(BadInput, match=sentence):
        opened(workdir, batch)
    assert not list(workdir.runs.glob("*"))


class Three:
    """A batch of three after its promotion, of which a step is watched."""

    def __init__(self, workdir: Workdir, failing: set[int], patch: pytest.MonkeyPatch) -> None:
        self.lead, self.done, self.failing = opened(workdir, (digit(7), digit(3), digit(5))), [], failing
        patch.setattr(perform_module, "_run_here", self.work)

    def work(self, row: Step, run: Attempt) -> RollOutRecord:
        label = run.plan().position
        self.done.append(label)
        if label in self.failing:
            raise BadInput(f"class {label} is under a legal hold.")
        return RollOutRecord(backend="none", uri="", onnx_sha256="0" * 64, revision="", outcome="none")


def test_after_the_promotion_what_one_is_held_for_keeps_the_others_from_nothing(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it, the first failure ends the step. Where all fail, so does the step."""
    three = Three(workdir, {7}, monkeypatch)
    perform_batch(step_named("purge"), three.lead)
    assert three.done == [7, 3, 5]
    three.done.clear()
    with pytest.raises(EraseDiffError):
        perform_batch(step_named("version_forget_set"), three.lead)
    assert three.done == [7]
    three.failing |= {3, 5}
    with pytest.raises(SystemExit):
        perform_component("purge", str(workdir.root), run=three.lead.name)


def test_a_step_of_any_attempt_is_one_of_the_whole_batch_until_the_promotion(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    three = Three(workdir, set(), monkeypatch)
    other = others_of(three.lead)[0]
    perform_batch(step_named("version_forget_set"), other)
    assert three.done == [7, 3, 5]
    three.done.clear()
    perform(step_named("certify"), other)
    assert three.done == [3]


def test_a_purge_under_way_goes_on_with_the_whole_batch(
    tmp_path: Path, tiny_unet: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that is alone goes on alone, and what was certified and never reported comes last."""
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", "somewhere")
    run = promoted_run(tmp_path / "work", tiny_unet)
    (asked,) = filed(run.workdir, int(REQUEST.label))
    take_requests(run)
    filed(run.workdir, 7)
    for name in ("erase", "gate", "promote"):
        move_requests(run, step_named(name))
    assert begin_purge(run) == (asked,)
    assert labels(next_batch(run.workdir, "digits")) == [int(REQUEST.label)]
    assert labels(next_batch(run.workdir, "digits", {REQUEST})) == [7]
    for ended in (finish_purge, mark_certified):
        ended(run, run.need(ErasedRecord))
    assert labels(next_batch(run.workdir, "digits")) == [7]
    assert labels(next_batch(run.workdir, "digits", {digit(7)})) == [int(REQUEST.label)], "a kill has prevented its outcome"
    run.workdir.outcome.write_text("{}")
    assert next_batch(run.workdir, "digits", {digit(7)}) == ()


def test_a_batch_has_one_model_one_graph_and_one_version_and_every_attempt_its_own_records(
    workdir: Workdir, tiny_unet: Callable[..., torch.nn.Module], tmp_path: Path
) -> None:
    """The steps that take over what the first attempt has made, on files; the end-to-end test has them all."""
    from erasediff.steps.register import register
    from erasediff.steps.version_forget_set import split_of

    made = promoted_run(tmp_path / "made", tiny_unet)
    lead = opened(workdir, (digit(0), digit(3)))
    other = others_of(lead)[0]
    kinds = (BaseRecord, ErasedRecord, VerdictRecord, ExportedRecord, RegisteredRecord)
    for kind in kinds:
        made.need(kind).write(lead.path(kind))
    base = lead.need(BaseRecord)
    many = np.repeat(np.arange(10), 4)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    images[20] = images[0]  # a picture of a class to forget lies under a retained label, and is retained in no attempt
    dataset = ImageDataset("digits", write_rows([images]), many, tuple("0123456789"))
    kept = [split_apart(dataset, label, (beside,), "forget", tmp_path).split.retain for label, beside in ((0, 3), (3, 0))]
    assert np.array_equal(*kept)
    assert 20 not in kept[0]
    with pytest.raises(BadInput, match="1 pictures of dataset digits are a picture to forget"):
        split_of(lead, base, dataset)
    images[20] = 0
    dataset = ImageDataset("digits", write_rows([images]), many, tuple("0123456789"))
    kept = [split_of(one, base, dataset).split.retain for one in batch_of(lead)]
    assert np.array_equal(*kept)
    assert not np.isin(many[kept[0]], (0, 3)).any()
    base.write(other.path(BaseRecord))
    from erasediff.records.core import ForgetSetRecord

    for one in batch_of(lead):
        made.need(ForgetSetRecord).model_copy(update={"label": one.plan().position}).write(one.path(ForgetSetRecord))
    curves = lead.folder / lead.need(ErasedRecord).curves.uri
    curves.write_bytes(b"curves")
    shared = perform(step_named("erase"), other)
    assert other.need(ErasedRecord).model == lead.need(ErasedRecord).model
    assert set(shared.made_from) == {"base", "forget_set", "config", f"forget_set.{lead.name}"}
    assert sha256_file(other.folder / "curves.npz") == sha256_file(curves)
    for kind in (VerdictRecord, ExportedRecord):
        made.need(kind).write(other.path(kind))
    assert register(other).version == lead.need(RegisteredRecord).version
    verdict = other.need(VerdictRecord)
    verdict.model_copy(update={"verdict": Verdict.FAIL}).write(other.path(VerdictRecord))
    for one in batch_of(lead):
        with pytest.raises(BadInput, match=f"run {other.name} did not pass"):
            register(one)  # step by step, with no pipeline around it that would have ended after the gate
