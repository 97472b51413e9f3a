"""Register the model that passed, with all digests as tags, and make it the challenger."""

from __future__ import annotations

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of, lead_of
from erasediff.errors import BadInput, IntegrityError
from erasediff.evaluate.gate import drift_after
from erasediff.files import sha256_file
from erasediff.models.layout import check_recorded
from erasediff.progress import progress
from erasediff.records.base import Record
from erasediff.records.core import BaseRecord, ErasedRecord, ExportedRecord, ForgetSetRecord, RegisteredRecord, Verdict, VerdictRecord
from erasediff.records.measurements import Measurements
from erasediff.steps.gate import history_of
from erasediff.tracking import CHALLENGER, DRIFT_TAG, MODEL_ARTIFACTS, Tracking, model_tags


def register(attempt: Attempt) -> RegisteredRecord:
    """Register this attempt's model; a batch's model is registered once, and only if every attempt of it passed.

    Raises:
        BadInput: an earlier step is missing, or the model or its graph did not pass.
        IntegrityError: the graph is not the measured one.
    """
    for one in batch_of(attempt):
        exported, verdict = one.need(ExportedRecord), one.need(VerdictRecord)
        if Verdict.PASS is not verdict.verdict or Verdict.PASS is not exported.verdict:
            raise BadInput(f"run {one.name} did not pass ({verdict.verdict}, exported graph {exported.verdict}): only PASS is registered.")
    if lead_of(attempt) != attempt:
        return lead_of(attempt).need(RegisteredRecord)
    exported, verdict = attempt.need(ExportedRecord), attempt.need(VerdictRecord)
    plan, base, erased = attempt.plan(), attempt.need(BaseRecord), attempt.need(ErasedRecord)
    onnx = attempt.folder / exported.onnx.uri
    if any(sha256_file(attempt.folder / pointer.uri) != pointer.sha256 for pointer in exported.files):
        raise IntegrityError(f"{onnx.parent} does not hold what was measured: remove it and run `erasediff export-onnx` again.")
    check_recorded(attempt.workdir.models / erased.model.weights.uri, erased.model)
    tracking = Tracking(attempt.workdir.root)
    with progress("uploading the model", 2) as done:
        source = tracking.log_artifacts(plan.mlflow_run_id, attempt.workdir.models / erased.model.weights.uri, MODEL_ARTIFACTS)
        tracking.log_model_record(plan.mlflow_run_id, erased.model)
        done(1)
        tracking.log_artifacts(plan.mlflow_run_id, onnx.parent, "onnx")
        done(2)
    tags = model_tags(erased.model) | {"erasediff.onnx_sha256": exported.onnx.sha256} | _provenance(attempt, plan.digest(), verdict)
    version = tracking.register(base.name, source, plan.mlflow_run_id, tags)
    tracking.set_alias(base.name, CHALLENGER, version)
    return RegisteredRecord(
        name=base.name, version=version, weights_sha256=erased.model.weights.sha256, onnx_sha256=exported.onnx.sha256, source=source
    )


def _provenance(attempt: Attempt, plan_digest: str, verdict: VerdictRecord) -> dict[str, str]:
    """The digests of all records behind the model, so that a version can be traced without this workdir."""
    kinds: tuple[type[Record], ...] = (BaseRecord, ForgetSetRecord, ErasedRecord, Measurements, VerdictRecord, ExportedRecord)
    digests = {kind.__name__.removesuffix("Record").lower(): attempt.need(kind).digest() for kind in kinds}
    forget_set, base = attempt.need(ForgetSetRecord), attempt.need(BaseRecord)
    drift = drift_after(attempt.need(Measurements), history_of(attempt, base))
    return {
        **({} if drift is None else {DRIFT_TAG: repr(drift)}),
        "erasediff.request": attempt.plan().request_id,
        "erasediff.plan": plan_digest,
        "erasediff.config": attempt.plan().config_digest,
        "erasediff.policy": attempt.plan().policy_digest,
        "erasediff.verdict": str(verdict.verdict),
        "erasediff.forget_set_version": forget_set.version,
        "erasediff.base_version": base.version,
        **{f"erasediff.record.{name}": digest for name, digest in digests.items()},
    }
