"""The lie: PASS, where a judge broke down, or where something beside the measurements had a say."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import load_dataset
from erasediff.errors import BadInput, EraseDiffError, IntegrityError
from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.real import real_images
from erasediff.files import append_line, sha256_bytes
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.models.folder import save_model
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.records.base import Pointer
from erasediff.records.config import DenoiserConfig, DetectorConfig, RunConfig, SamplerConfig
from erasediff.records.core import BaseRecord, ErasedRecord, ErasureRequest, PlanRecord, Try, Verdict, VerdictRecord
from erasediff.records.measurements import Measurements
from erasediff.records.policy import GatePolicy, load_policy
from erasediff.steps import judges
from erasediff.steps.component import perform_component
from erasediff.steps.perform import perform
from erasediff.steps.record_outcome import confidence
from erasediff.steps.table import step_named
from erasediff.tracking import Tracking
from tests.digits import DIGITS
from tests.e2e.numbers import QUICK
from tests.evaluate.gate_examples import EARLIER, LABEL, POLICY, detected, measurements, witness

CONFIG = RunConfig(
    denoiser=DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4),
    detector=DetectorConfig(steps=2),
    sampler=SamplerConfig(steps=1, workers=1),
)
KEY, DIGEST = bytes(32), "0" * 64


@pytest.fixture
def run(tmp_path: Path, tiny_unet: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """An attempt that has come as far as an erased model; the base had forgotten a label before, as in the example that passes."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return erased(tmp_path, tiny_unet, POLICY)


def erased(tmp_path: Path, tiny_unet: Callable[..., torch.nn.Module], policy: GatePolicy) -> Attempt:
    workdir = Workdir.open(tmp_path / "work")
    plan = PlanRecord(
        made_from={"dataset": load_dataset(CONFIG.dataset).digest()},
        run="one",
        attempt=1,
        request=ErasureRequest(dataset="digits", label=str(LABEL)),
        position=LABEL,
        request_id=DIGEST,
        config_digest=CONFIG.digest(),
        policy_digest=policy.digest(),
        seed_commitment=sha256_bytes(KEY),
        mlflow_run_id=Tracking(workdir.root).start_run("test", {}),
    )
    opened = workdir.open_attempt(plan, CONFIG, policy, KEY)
    scheduler = build_scheduler(CONFIG.sampler, squared_cosine(1000))
    before, after = (
        save_model(ClassConditionalUNet.of(tiny_unet(s), scheduler), workdir.models, "digits", DIGITS, tuple(map(str, (*EARLIER, LABEL)))[: s + 1])
        for s in (0, 1)
    )
    BaseRecord(
        name="digits", version="2", model=before, judges=judges.pin_judges(opened, real_images(load_dataset(CONFIG.dataset), CONFIG.dataset))
    ).write(opened.path(BaseRecord))
    curves = Pointer(uri="curves.npz", sha256=DIGEST)
    ErasedRecord(model=after, steps=1, forward_passes=3, backward_passes=2, ema_base_share=0, curves=curves).write(opened.path(ErasedRecord))
    return opened


def measured(run: Attempt, **changes: Any) -> None:
    """Measurements by the judges who were pinned."""
    pinned = run.need(BaseRecord).judges
    assert pinned is not None
    detector = measurements().detector.model_copy(update={"sha256": pinned.classifier})
    good = {"detector": detector, "neighbours": witness(sha256=pinned.neighbours), "features": pinned.features}
    measurements(**good | changes).write(run.path(Measurements))


def said(run: Attempt) -> Verdict:
    perform(step_named("gate"), run)
    return run.need(VerdictRecord).verdict


@pytest.mark.parametrize(("detections", "wanted"), [(12, Verdict.PASS), (40, Verdict.FAIL)])
@pytest.mark.parametrize("clock", ["forwards", "backwards"])
def test_the_clock_has_no_say(run: Attempt, monkeypatch: pytest.MonkeyPatch, clock: str, detections: int, wanted: Verdict) -> None:
    """Clocks are set back by an hour, and by people. Forwards is the control."""
    measured(run, forget_erased=detected(detections))
    if clock == "backwards":
        ticks = itertools.count(10**9, -3600)
        monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
        monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    assert said(run) is wanted


@pytest.mark.parametrize(("base", "erased", "code"), [(970, 12, 0), (970, 40, 10), (100, 12, 11)], ids=["PASS", "FAIL", "INCONCLUSIVE"])
def test_the_component_ends_with_the_verdicts_exit_code(run: Attempt, base: int, erased: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Kubeflow starts no step after one that failed. Control: PASS ends it well."""
    measured(run, forget_base=detected(base), forget_erased=detected(erased))
    if not code:
        assert perform_component("gate", str(run.workdir.root), run=run.name).text == run.digest_of(VerdictRecord)
        return
    with pytest.raises(SystemExit) as ended:
        perform_component("gate", str(run.workdir.root), run=run.name)
    assert ended.value.code == code == run.need(VerdictRecord).verdict.exit_code
    assert capsys.readouterr().err.splitlines()[-1].endswith("so nothing is promoted; the report shows every check.")


def test_measurements_by_another_judge_leave_no_verdict(run: Attempt) -> None:
    measured(run, detector=measurements().detector)
    with pytest.raises(IntegrityError, match="other detectors"):
        perform(step_named("gate"), run)
    assert run.find(VerdictRecord) is None


@pytest.mark.parametrize("fault", [RuntimeError("a kernel failed"), MemoryError(), ValueError("nan")])
def test_a_detector_that_breaks_down_leaves_no_measurements_and_the_gate_refuses(
    tmp_path: Path, tiny_unet: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The evaluation is the real one, on few samples; half of it must not become a verdict."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = erased(tmp_path, tiny_unet, load_policy(QUICK / "policy.yaml"))
    seen = itertools.count()
    look = Detector.look

    def break_down(self: Detector, images: torch.Tensor) -> Any:
        if next(seen) >= 2:
            raise fault
        return look(self, images)

    monkeypatch.setattr(Detector, "look", break_down)
    with pytest.raises(EraseDiffError, match="step evaluate failed unexpectedly"):
        perform(step_named("evaluate"), run)
    assert next(seen) > 2, "control: it had begun"
    assert run.find(Measurements) is None
    with pytest.raises(BadInput, match="run `erasediff evaluate` first"):
        perform(step_named("gate"), run)
    assert run.find(VerdictRecord) is None


def test_bounds_are_tracked_by_their_confidence_and_the_second_try_has_more_of_it(run: Attempt) -> None:
    """The lie: 95 % over a bound that was asked at 97.5 %, or the other way round."""
    measured(run)
    other = run.plan().model_copy(update={"run": "other"})
    append_line(run.workdir.tries, Try(request=other.request.digest(), plan=other.digest(), step="gate", verdict=Verdict.FAIL).canonical())
    assert confidence(run) == pytest.approx(0.95), "control: before the verdict it is the policy's"
    said(run)
    assert confidence(run) == pytest.approx(0.975), "and the report says it too"
    metrics = MlflowClient(f"sqlite:///{run.workdir.root}/mlflow.db").get_run(run.plan().mlflow_run_id).data.metrics
    f1 = next(check for check in run.need(VerdictRecord).checks if check.id == "F1")
    assert metrics["gate.f1.upper97.5"] == pytest.approx(f1.bound)
    assert "gate.f1.upper95" not in metrics
