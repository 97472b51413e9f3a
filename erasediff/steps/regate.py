"""Re-run the gate on the deployed model with fresh seeds; a schedule does this if there are no open requests."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

from erasediff.attempts.workdir import FETCHED_PREFIX, Workdir
from erasediff.data.datasets import dataset_of
from erasediff.errors import BadInput, NotPassed
from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.gate import run_regate
from erasediff.evaluate.measure import watch_for
from erasediff.evaluate.real import RealImages, real_images
from erasediff.evaluate.seeds import secret_key
from erasediff.evidence.served_rules import workdir_rules
from erasediff.export.served import Served
from erasediff.files import temporary_folder
from erasediff.records.attacks import Detections
from erasediff.records.config import RunConfig
from erasediff.records.core import ModelRecord, RegisteredRecord, Verdict
from erasediff.records.policy import GatePolicy
from erasediff.records.regate import Recalled, RegateRecord
from erasediff.rollout.store import Exported
from erasediff.serve.graph import OnnxDecoder, OnnxGraph
from erasediff.serve.solver import load_table
from erasediff.steps.gate import metrics_of
from erasediff.steps.judges import classifier
from erasediff.steps.versions import Version, fetch_exported, version_of
from erasediff.tracking import CHAMPION, Tracking

FOLDER = "regates"


def regate(workdir: Workdir, config: RunConfig, policy: GatePolicy) -> RegateRecord | None:
    """Re-run the gate on the champion's exported graph with fresh seeds and the classifier that was pinned for its erasure.

    Returns:
        The verdict, also written to the workdir and MLflow; ``None`` if the champion has not forgotten anything.

    Raises:
        BadInput: the run that made the champion is not in this workdir, or its graph may not be served.
        IntegrityError: the graph or the classifier is not the recorded one.
    """
    tracking = Tracking(workdir.root)
    entry = tracking.alias(config.model_name, CHAMPION)
    version = None if entry is None else version_of(entry)
    if entry is None or version is None:
        return None
    model = tracking.recorded_model(entry)
    with temporary_folder(workdir.root, FETCHED_PREFIX) as folder:
        exported = fetch_exported(tracking, config.model_name, version, folder, workdir_rules(workdir))
        record = _judge(workdir, config, policy, model, version, exported)
    record.write(workdir.root / FOLDER / f"{record.at:%Y%m%dT%H%M%SZ}-{record.version}.json")
    _log(tracking, record, policy.alpha)
    return record


def check_passed(record: RegateRecord) -> None:
    """Raise an error if the deployed model did not pass, so that a schedule fails visibly.

    Raises:
        NotPassed: the verdict is FAIL or INCONCLUSIVE.
    """
    if record.verdict is Verdict.PASS:
        return
    bad = ", ".join(f"{check.id}: {check.verdict}" for check in record.checks if check.verdict != "PASS")  # titles name classes, and pods log this
    raise NotPassed(
        f"the deployed version {record.version} of {record.name!r} did not pass {bad}: suppress the class, and erase it again.",
        record.verdict.exit_code,
    )


def _judge(workdir: Workdir, config: RunConfig, policy: GatePolicy, model: ModelRecord, version: Version, exported: Exported) -> RegateRecord:
    real, key = real_images(dataset_of(config.dataset, model), config.dataset), secret_key()
    detector = _pinned_classifier(workdir, version, real)
    table = load_table(exported.folder / Path(exported.model.solvers.uri).name, exported.model.solver)
    parts = {pointer.uri: exported.folder / Path(pointer.uri).name for pointer in exported.model.files}
    decoder = None if exported.model.decoder is None else OnnxDecoder(parts[exported.model.decoder.uri])
    null_row = model.classes if exported.model.null_row else None
    served = Served(OnnxGraph(parts[exported.model.onnx.uri]), table, null_row, config.sampler, decoder)
    retained = [label for label in range(real.classes) if label not in model.rows_forgotten]

    def count(label: int, n: int, check: str) -> Recalled:
        watch = watch_for(detector, real, label, retained, policy)
        return Recalled(
            label=label, name=model.class_names[label], found=served.count(watch, n, check, key, f"label {label}"), detector=watch.quality
        )

    recalled = tuple(count(label, policy.export.n, f"F8.{label}") for label in model.rows_forgotten)
    each = -(-policy.export.n // len(retained))
    made = reduce(_sum, (count(label, each, f"C0.{label}").found for label in retained))
    decision = run_regate(policy, recalled, made)
    return RegateRecord(
        made_from={"model": model.digest(), "classifier": detector.digest},
        name=config.model_name,
        version=version.number,
        weights_sha256=version.weights_sha256,
        onnx_sha256=version.onnx_sha256,
        policy_digest=policy.digest(),
        evaluation_key=key.hex(),
        at=datetime.now(UTC).replace(microsecond=0),
        recalled=recalled,
        retained=made,
        verdict=decision.verdict,
        checks=decision.checks,
    )


def _sum(one: Detections, other: Detections) -> Detections:
    return Detections(n=one.n + other.n, detections=one.detections + other.detections)


def _pinned_classifier(workdir: Workdir, version: Version, real: RealImages) -> Detector:
    """The classifier that judged the erasure of this version; another one might detect less."""
    for run in workdir.attempts():
        registered = run.find(RegisteredRecord)
        if registered is not None and (registered.version, registered.weights_sha256) == (version.number, version.weights_sha256):
            return classifier(run, real)
    raise BadInput(f"the run that made version {version.number} is not in {workdir.root}: name its workdir with --workdir.")


def _log(tracking: Tracking, record: RegateRecord, alpha: float) -> None:
    title = f"gate of {record.name}, deployed version {record.version}"
    run = tracking.start_run(title, {"erasediff.regate": record.digest(), "erasediff.verdict": record.verdict.value})
    tracking.log_metrics(run, metrics_of(record.checks, alpha))
    tracking.end_run(run, "FINISHED")
