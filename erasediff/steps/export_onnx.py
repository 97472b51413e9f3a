"""Export what passed, and hold the exported graph to the same standard before anything serves it."""

from __future__ import annotations

from dataclasses import replace

import torch

from erasediff.errors import BadInput
from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.gate import run_export_gate
from erasediff.evaluate.measure import count_detections, real_images, watch_for
from erasediff.evaluate.sampling import Source
from erasediff.export.onnx import OnnxDenoiser, export_denoiser, measure_parity, quantised
from erasediff.files import sha256_file
from erasediff.models.folder import load_model
from erasediff.records.base import Pointer
from erasediff.records.nouns import Detections, ErasedRecord, ExportedRecord, Verdict, VerdictRecord
from erasediff.records.workdir import Run
from erasediff.steps.gate import log_checks
from erasediff.steps.judges import classifier
from erasediff.steps.tries import keep_try

ONNX = "onnx/model.onnx"


def export_onnx(run: Run) -> ExportedRecord:
    """Export the erased model and measure the graph (F8).

    Raises:
        BadInput: an earlier step is missing, or the gate did not say PASS.
    """
    erased, verdict = run.need(ErasedRecord, "erase"), run.need(VerdictRecord, "gate")
    if verdict.verdict is not Verdict.PASS:
        raise BadInput(f"the gate said {verdict.verdict} of run {run.name}: only a model that passed is exported.")
    return run.made(ExportedRecord, {"erased": erased.digest(), "verdict": verdict.digest()}, lambda: _export(run, erased, verdict.attempt))


def _export(run: Run, erased: ErasedRecord, attempt: int) -> ExportedRecord:
    config, policy, label = run.config(), run.policy().for_attempt(attempt), run.plan().request.label
    pipeline = load_model(run.workdir.models, erased.model)
    path = run.folder / ONNX
    export_denoiser(pipeline, path)
    denoiser = OnnxDenoiser(path)
    parity = measure_parity(pipeline, denoiser)
    source = Source(denoiser, pipeline.scheduler, pipeline.image_shape, pipeline.classes, torch.device("cpu"))
    real = real_images(config)
    retained = [c for c in range(real.classes) if c not in erased.model.forgotten]
    watch = watch_for(classifier(run, real), real, label, retained, policy)
    found, _ = count_detections(watch, source, policy.export.n, "F8", run.evaluation_key(), config.sampler, "ONNX: forgotten label")
    rounded = _with_rounded_weights(run, source, watch) if policy.tier == 2 else None
    decision = run_export_gate(policy, label, found, parity, rounded)
    keep_try(run, "export_onnx", decision.verdict)
    log_checks(run, decision.checks, policy.alpha)
    return ExportedRecord(
        onnx=Pointer(uri=ONNX, sha256=sha256_file(path)),
        weights_sha256=erased.model.weights.sha256,
        parity=parity,
        forget_onnx=found,
        forget_int8=rounded,
        verdict=decision.verdict,
        checks=decision.checks,
    )


def _with_rounded_weights(run: Run, source: Source, watch: Watch) -> Detections:
    """F1 again on the graph with weights of 8 bits: rounding must not bring back what an erasure moved a little. The graph is not kept."""
    with run.scratch() as folder:
        rounded = replace(source, denoiser=quantised(run.folder / ONNX, folder / "int8.onnx"))
        n, key = run.policy().export.n, run.evaluation_key()
        return count_detections(watch, rounded, n, "F8.int8", key, run.config().sampler, "ONNX, 8 bits: forgotten label")[0]
