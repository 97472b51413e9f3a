"""The lie: 'erased', on the word of a TrainJob's status."""

import json
from pathlib import Path

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.journal import FAILURE, read_failure
from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput, IntegrityError
from erasediff.files import sha256_bytes
from erasediff.records.base import Pointer
from erasediff.records.config import RunConfig
from erasediff.records.core import BaseRecord, ErasedRecord, ErasureRequest, Failure, ForgetSetRecord, ModelRecord, PlanRecord
from erasediff.records.policy import load_policy
from erasediff.records.trainjob import SETTINGS_VARIABLE, TrainJobSettings
from erasediff.steps.component import perform_component
from erasediff.steps.erase_in_trainjob import erase_in_trainjob
from erasediff.steps.perform import finished_record, input_digests
from erasediff.steps.table import step_named
from erasediff.trainjob import TrainJobFailed, job_name
from tests.digits import DIGITS
from tests.kubeflow.fake_trainer import COMPLETE, FAILED, FakeTrainerApi
from tests.kubeflow.test_trainjob import SETTINGS, client_of

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
SIZE = {"cpu": "2", "memory": "4Gi", "gpus": "1"}
CONFIG, KEY, DIGEST = RunConfig(), bytes(32), "0" * 64
ERASE = step_named("erase")
MODEL = ModelRecord(dataset="digits", class_names=DIGITS, weights=Pointer(uri="w", sha256=DIGEST), folder_sha256=DIGEST)
NUMBERS = {"count": 3, "retain_count": 3, "gone_count": 0, "forget_indices_hmac": DIGEST, "retain_indices_hmac": DIGEST}


@pytest.fixture
def run(tmp_path: Path) -> Attempt:
    """An attempt whose next step is the erasure."""
    plan = PlanRecord(
        run="one",
        attempt=1,
        request=ErasureRequest(dataset="digits", label="3"),
        position=3,
        request_id=DIGEST,
        config_digest=CONFIG.digest(),
        policy_digest=POLICY.digest(),
        seed_commitment=sha256_bytes(KEY),
        mlflow_run_id="r",
    )
    opened = Workdir.open(tmp_path / "work").open_attempt(plan, CONFIG, POLICY, KEY)
    BaseRecord(name="digits", version="1", model=MODEL).write(opened.path(BaseRecord))
    forget = ForgetSetRecord(label=3, version=f"{'0' * 32}.dir", remote="r", manifest_sha256=DIGEST, **NUMBERS)
    forget.write(opened.path(ForgetSetRecord))
    return opened


@pytest.fixture
def settings(run: Attempt) -> TrainJobSettings:
    return SETTINGS.model_copy(update={"mount": str(run.workdir.root)})


def written(run: Attempt, made_from: dict[str, str]) -> ErasedRecord:
    """What the step inside the TrainJob writes."""
    record = ErasedRecord(
        made_from=made_from, model=MODEL, steps=1, forward_passes=1, backward_passes=1, ema_base_share=0.0, curves=Pointer(uri="c", sha256=DIGEST)
    )
    record.write(run.path(ErasedRecord))
    return record


def test_the_record_is_the_one_that_the_trainjob_wrote_and_a_second_try_makes_no_trainjob(run: Attempt, settings: TrainJobSettings) -> None:
    fake = FakeTrainerApi(COMPLETE, on_complete=lambda: written(run, input_digests(ERASE, run)))
    with fake:
        first = erase_in_trainjob(run, settings, input_digests(ERASE, run), client_of(fake))
    assert finished_record(ERASE, run) == first
    assert fake.deleted == [job_name(run.plan().digest())]


@pytest.mark.parametrize("write", [lambda run: None, lambda run: written(run, {"base": "another"})], ids=["no record", "a stale record"])
def test_a_trainjob_that_says_complete_is_not_believed_without_its_record(run: Attempt, settings: TrainJobSettings, write) -> None:
    fake = FakeTrainerApi(COMPLETE, on_complete=lambda: write(run))
    with fake, pytest.raises(IntegrityError, match="left no record of this erasure"):
        erase_in_trainjob(run, settings, input_digests(ERASE, run), client_of(fake))


@pytest.mark.parametrize(("code", "kind"), [(2, BadInput), (1, TrainJobFailed)])
def test_the_sentence_of_the_step_inside_is_quoted_with_its_exit_code(run: Attempt, settings: TrainJobSettings, code: int, kind: type) -> None:
    Failure(step="erase", message="the forget set cannot be fetched.", exit_code=code).write(run.folder / FAILURE)
    fake = FakeTrainerApi(FAILED)
    with fake, pytest.raises(kind, match=r"failed \(DeadlineExceeded: .*\); the step there says: the forget set cannot be fetched\.$"):
        erase_in_trainjob(run, settings, input_digests(ERASE, run), client_of(fake))


def test_a_workdir_that_the_pods_would_not_see_is_refused(run: Attempt) -> None:
    fake = FakeTrainerApi(COMPLETE)
    with fake, pytest.raises(BadInput, match="not on the volume that a TrainJob mounts at /workdir"):
        erase_in_trainjob(run, SETTINGS, input_digests(ERASE, run), client_of(fake))
    assert fake.requests == []


def test_the_component_makes_a_trainjob_only_where_the_profile_says_so(run: Attempt, settings: TrainJobSettings, monkeypatch, capsys) -> None:
    """Without a cluster the component ends with a sentence, exit code 2, and the failure in the attempt's folder."""
    monkeypatch.delenv(SETTINGS_VARIABLE, raising=False)
    with pytest.raises(SystemExit, match="2"):
        perform_component("erase", str(run.workdir.root), run=run.name, size=SIZE)
    assert "cluster" not in read_failure(run.folder).message, "control: without the variable the step itself ran, and found no weights"
    monkeypatch.setenv(SETTINGS_VARIABLE, json.dumps(settings.model_dump(mode="json", exclude={"size"})))
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SystemExit, match="2"):
        perform_component("erase", str(run.workdir.root), run=run.name, size=SIZE)
    failure = read_failure(run.folder)
    assert failure is not None
    assert "no cluster is configured" in failure.message
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("text", [json.dumps({"image": "i", "gpus": 2}), "[]", "{"])
def test_settings_that_are_not_the_document_are_refused(monkeypatch, text) -> None:
    monkeypatch.setenv(SETTINGS_VARIABLE, text)
    with pytest.raises(BadInput, match=SETTINGS_VARIABLE):
        TrainJobSettings.from_environment(SETTINGS.size)
