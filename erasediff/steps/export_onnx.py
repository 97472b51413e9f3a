"""Export what passed, and hold the exported graph to the same standard before anything serves it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from erasediff.errors import BadInput, IntegrityError
from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.gate import run_export_gate
from erasediff.evaluate.measure import watch_for
from erasediff.evaluate.real import real_images
from erasediff.export.onnx import OnnxDenoiser, export_denoiser, measure_parity, quantise
from erasediff.export.served import Served
from erasediff.export.solvers import solver_name, solver_table
from erasediff.files import atomic_path, sha256_file
from erasediff.models.folder import load_model
from erasediff.records.attacks import Detections
from erasediff.records.base import Pointer
from erasediff.records.nouns import MANIFEST, ErasedRecord, ExportedRecord, ServedModel, Verdict, VerdictRecord
from erasediff.records.workdir import Run
from erasediff.serve.graph import OnnxGraph
from erasediff.serve.solver import save_table
from erasediff.steps.decided import exported_of
from erasediff.steps.gate import log_checks
from erasediff.steps.judges import classifier
from erasediff.steps.tries import keep_try

ONNX, SOLVERS = "onnx/model.onnx", "onnx/solvers.npz"


def export_onnx(run: Run) -> ExportedRecord:
    """Export the erased model with the table of its solver, and measure what serves: F8 samples by the server's own loop.

    A batch has one graph, that of its first attempt, and each attempt measures it for its own class.

    Raises:
        BadInput: an earlier step is missing, or the gate did not say PASS.
    """
    erased, verdict = run.need(ErasedRecord, "erase"), run.need(VerdictRecord, "gate")
    if verdict.verdict is not Verdict.PASS:
        raise BadInput(f"the gate said {verdict.verdict} of run {run.name}: only a model that passed is exported.")
    return run.made(ExportedRecord, exported_of(run), lambda: _export(run, erased, verdict.attempt))


def _export(run: Run, erased: ErasedRecord, attempt: int) -> ExportedRecord:
    config, policy, label = run.config(), run.policy().for_attempt(attempt), run.plan().request.label
    pipeline = load_model(run.workdir.models, erased.model)
    path, solvers = run.folder / ONNX, run.folder / SOLVERS
    table = solver_table(config.sampler.scheduler, config.sampler.steps, pipeline.schedule)
    if run.lead == run:
        export_denoiser(pipeline, path)
        with atomic_path(solvers) as temporary:
            save_table(solver_name(config.sampler), table, temporary)
    else:
        _take_graph(run, path, solvers)
    parity = measure_parity(pipeline, OnnxDenoiser(path))
    served = Served(OnnxGraph(path), table, pipeline.classes, config.sampler)
    real = real_images(config)
    retained = [c for c in range(real.classes) if c not in erased.model.forgotten]
    watch = watch_for(classifier(run, real), real, label, retained, policy)
    found = served.count(watch, policy.export.n, "F8", run.evaluation_key(), "ONNX: forgotten label")
    rounded = _with_rounded_weights(run, served, watch) if policy.tier == 2 else None
    decision = run_export_gate(policy, label, found, parity, rounded)
    keep_try(run, "export_onnx", decision.verdict)
    log_checks(run, decision.checks, policy.alpha)
    record = ExportedRecord(
        onnx=Pointer(uri=ONNX, sha256=sha256_file(path)),
        solvers=Pointer(uri=SOLVERS, sha256=sha256_file(solvers)),
        solver=solver_name(config.sampler),
        weights_sha256=erased.model.weights.sha256,
        parity=parity,
        forget_onnx=found,
        forget_int8=rounded,
        verdict=decision.verdict,
        checks=decision.checks,
    )
    (path.parent / MANIFEST).unlink(missing_ok=True)
    if record.verdict is Verdict.PASS:
        _served_model(erased, record, config.sampler.guidance_scale).write(path.parent / MANIFEST)
    return record


def _take_graph(run: Run, path: Path, solvers: Path) -> None:
    """Lay the batch's graph and table beside an attempt, as they were measured before.

    Raises:
        IntegrityError: they are others.
    """
    exported = run.lead.need(ExportedRecord, "export-onnx")
    path.parent.mkdir(exist_ok=True)
    for pointer, target in ((exported.onnx, path), (exported.solvers, solvers)):
        with atomic_path(target) as temporary:
            shutil.copyfile(run.lead.folder / pointer.uri, temporary)
            if sha256_file(temporary) != pointer.sha256:
                raise IntegrityError(f"{run.lead.folder / pointer.uri} is not what was measured: run `erasediff export-onnx` again.")


def _served_model(erased: ErasedRecord, exported: ExportedRecord, guidance_scale: float) -> ServedModel:
    """What a server has to know; only a graph that passed has it."""
    model = erased.model
    return ServedModel(
        made_from={"erased": erased.digest()},
        dataset=model.dataset,
        classes=model.classes,
        forgotten=model.forgotten,
        epoch=model.epoch,
        onnx=exported.onnx,
        solvers=exported.solvers,
        solver=exported.solver,
        guidance_scale=guidance_scale,
        weights_sha256=exported.weights_sha256,
        verdict=exported.verdict,
    )


def _with_rounded_weights(run: Run, served: Served, watch: Watch) -> Detections:
    """F1 again on the graph with weights of 8 bits: rounding must not bring back what an erasure moved a little. The graph is not kept."""
    with run.scratch() as folder:
        quantise(run.folder / ONNX, folder / "int8.onnx")
        rounded = replace(served, graph=OnnxGraph(folder / "int8.onnx"))
        return rounded.count(watch, run.policy().export.n, "F8.int8", run.evaluation_key(), "ONNX, 8 bits: forgotten label")
