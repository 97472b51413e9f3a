"""Register the model that passed, with every digest as a tag, and make it the challenger."""

from __future__ import annotations

from erasediff.errors import BadInput, IntegrityError
from erasediff.evaluate.gate import drift_after
from erasediff.files import sha256_file
from erasediff.models.layout import check_recorded
from erasediff.records.base import Record
from erasediff.records.measurements import Measurements
from erasediff.records.nouns import BaseRecord, ErasedRecord, ExportedRecord, ForgetSetRecord, RegisteredRecord, Verdict, VerdictRecord
from erasediff.records.workdir import Run
from erasediff.steps.decided import registered_of
from erasediff.steps.gate import history_of
from erasediff.steps.tags import DRIFT_TAG, model_tags
from erasediff.tracking import CHALLENGER, MODEL_ARTIFACTS, Tracking


def register(run: Run) -> RegisteredRecord:
    """Register this attempt's model; that of a batch is registered once, and only if every attempt of it has passed.

    Raises:
        BadInput: an earlier step is missing, or the model or its graph did not pass.
        IntegrityError: the graph is not the one that was measured.
    """
    for one in run.batch():
        exported, verdict = one.need(ExportedRecord, "export-onnx"), one.need(VerdictRecord, "gate")
        if Verdict.PASS is not verdict.verdict or Verdict.PASS is not exported.verdict:
            raise BadInput(f"run {one.name} did not pass ({verdict.verdict}, exported graph {exported.verdict}): only PASS is registered.")
    exported, verdict = run.need(ExportedRecord, "export-onnx"), run.need(VerdictRecord, "gate")
    if run.lead != run:
        return run.made(RegisteredRecord, registered_of(run), lambda: run.lead.need(RegisteredRecord, "register"))
    return run.made(RegisteredRecord, registered_of(run), lambda: _register(run, exported, verdict))


def _register(run: Run, exported: ExportedRecord, verdict: VerdictRecord) -> RegisteredRecord:
    plan, base, erased = run.plan(), run.need(BaseRecord, "train-base"), run.need(ErasedRecord, "erase")
    onnx, solvers = run.folder / exported.onnx.uri, run.folder / exported.solvers.uri
    if sha256_file(onnx) != exported.onnx.sha256 or sha256_file(solvers) != exported.solvers.sha256:
        raise IntegrityError(f"{onnx.parent} does not hold what was measured: remove it and run `erasediff export-onnx` again.")
    check_recorded(run.workdir.models / erased.model.weights.uri, erased.model)
    tracking = Tracking(run.workdir.root)
    source = tracking.log_artifacts(plan.mlflow_run_id, run.workdir.models / erased.model.weights.uri, MODEL_ARTIFACTS)
    tracking.log_artifacts(plan.mlflow_run_id, onnx.parent, "onnx")
    tags = model_tags(erased.model) | {"erasediff.onnx_sha256": exported.onnx.sha256} | _provenance(run, plan.digest(), verdict)
    version = tracking.register(base.name, source, plan.mlflow_run_id, tags)
    tracking.set_alias(base.name, CHALLENGER, version)
    return RegisteredRecord(
        name=base.name, version=version, weights_sha256=erased.model.weights.sha256, onnx_sha256=exported.onnx.sha256, source=source
    )


def _provenance(run: Run, plan_digest: str, verdict: VerdictRecord) -> dict[str, str]:
    """The digest of every record on the way, so that a version can be traced without this workdir."""
    kinds: tuple[type[Record], ...] = (BaseRecord, ForgetSetRecord, ErasedRecord, Measurements, VerdictRecord, ExportedRecord)
    digests = {kind.__name__.removesuffix("Record").lower(): run.need(kind, "run").digest() for kind in kinds}
    forget_set, base = run.need(ForgetSetRecord, "version-forget-set"), run.need(BaseRecord, "train-base")
    drift = drift_after(run.need(Measurements, "evaluate"), history_of(run, base))
    return {
        **({} if drift is None else {DRIFT_TAG: repr(drift)}),
        "erasediff.request": run.plan().request.digest(),
        "erasediff.plan": plan_digest,
        "erasediff.config": run.plan().config_digest,
        "erasediff.policy": run.plan().policy_digest,
        "erasediff.verdict": str(verdict.verdict),
        "erasediff.forget_set_version": forget_set.version,
        "erasediff.base_version": base.version,
        **{f"erasediff.record.{name}": digest for name, digest in digests.items()},
    }
