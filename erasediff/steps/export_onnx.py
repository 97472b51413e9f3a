"""Export the model that passed, and run the gate's F8 on the exported graph."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import lead_of
from erasediff.attempts.tries import record_try
from erasediff.data.datasets import dataset_of
from erasediff.errors import BadInput, IntegrityError
from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.gate import run_export_gate
from erasediff.evaluate.measure import watch_for
from erasediff.evaluate.real import real_images
from erasediff.evidence.signing import load_signing_key, sign
from erasediff.export.external import data_file
from erasediff.export.onnx import OnnxDenoiser, export_decoder, export_denoiser, measure_parity, quantise
from erasediff.export.served import Served
from erasediff.export.solvers import solver_name, solver_table
from erasediff.files import atomic_path, sha256_file, write_atomic
from erasediff.models.folder import load_model
from erasediff.progress import progress
from erasediff.records.attacks import Detections
from erasediff.records.base import Pointer
from erasediff.records.core import MANIFEST, SERVED, ErasedRecord, ExportedRecord, ServedModel, Verdict, VerdictRecord
from erasediff.records.settings import SigningSettings
from erasediff.serve.graph import OnnxDecoder, OnnxGraph
from erasediff.serve.solver import save_table
from erasediff.steps.gate import log_checks
from erasediff.steps.judges import classifier

ONNX, SOLVERS, DECODER = "onnx/model.onnx", "onnx/solvers.npz", "onnx/vae_decoder.onnx"


def export_onnx(attempt: Attempt) -> ExportedRecord:
    """Export the erased model with its solver's table, and measure both: F8 samples with the server's own code.

    A batch has one graph, made in its lead attempt; each attempt measures it for its own class, and signs a manifest of its own.

    Raises:
        BadInput: an earlier step is missing, the gate did not say PASS, or there is no signing key.
        Unreachable: the token or the service that holds the key does not answer.
    """
    erased, verdict = attempt.need(ErasedRecord), attempt.need(VerdictRecord)
    if verdict.verdict is not Verdict.PASS:
        raise BadInput(f"the gate's verdict on run {attempt.name} is {verdict.verdict}: only a model that passed is exported.")
    key = load_signing_key(SigningSettings.load(), datetime.now(UTC))
    config, policy, label = attempt.config(), attempt.policy().for_attempt(verdict.attempt), attempt.plan().position
    model = load_model(attempt.workdir.models, erased.model)
    path, solvers, decoder = attempt.folder / ONNX, attempt.folder / SOLVERS, attempt.folder / DECODER
    table = solver_table(config.sampler.scheduler, config.sampler.steps, model.schedule)
    if lead_of(attempt) == attempt:
        with progress("exporting the graph", 1):
            export_denoiser(model, path)
            if (network := model.decoder()) is not None:
                export_decoder(model, network, decoder)
        with atomic_path(solvers) as temporary:
            save_table(solver_name(config.sampler), table, temporary)
    else:
        _take_graph(attempt)
    parity = measure_parity(model, OnnxDenoiser(path))
    served = Served(OnnxGraph(path), table, model.null_row, config.sampler, OnnxDecoder(decoder) if model.latent else None)
    real = real_images(dataset_of(config.dataset, erased.model), config.dataset)
    retained = [c for c in range(real.classes) if c not in erased.model.rows_forgotten]
    watch = watch_for(classifier(attempt, real), real, label, retained, policy)
    found = served.count(watch, policy.export.n, "F8", attempt.evaluation_key(), "ONNX: forgotten label")
    rounded = _with_rounded_weights(attempt, served, watch) if policy.tier == 2 else None
    decision = run_export_gate(policy, attempt.plan().request.label, found, parity, rounded)
    record_try(attempt, "export_onnx", decision.verdict)
    log_checks(attempt, decision.checks, policy.alpha)
    record = ExportedRecord(
        onnx=Pointer(uri=ONNX, sha256=sha256_file(path)),
        solvers=Pointer(uri=SOLVERS, sha256=sha256_file(solvers)),
        decoder=Pointer(uri=DECODER, sha256=sha256_file(decoder)) if model.latent else None,
        data=_data_files(attempt, [path, decoder] if model.latent else [path]),
        solver=solver_name(config.sampler),
        weights_sha256=erased.model.weights.sha256,
        parity=parity,
        forget_onnx=found,
        forget_int8=rounded,
        verdict=decision.verdict,
        checks=decision.checks,
    )
    _remove_others(path.parent, record)
    if record.verdict is Verdict.PASS:
        manifest = _served_model(erased, record, config.sampler.guidance_scale, model.null_row is not None)
        write_atomic(path.parent / MANIFEST, sign(manifest, SERVED, key))
    return record


def _take_graph(attempt: Attempt) -> None:
    """Copy the lead attempt's graphs and table into an attempt.

    Raises:
        IntegrityError: they are not the measured ones.
    """
    exported = lead_of(attempt).need(ExportedRecord)
    (attempt.folder / ONNX).parent.mkdir(exist_ok=True)
    for pointer in exported.files:
        with atomic_path(attempt.folder / pointer.uri) as temporary:
            shutil.copyfile(lead_of(attempt).folder / pointer.uri, temporary)
            if sha256_file(temporary) != pointer.sha256:
                raise IntegrityError(f"{lead_of(attempt).folder / pointer.uri} is not what was measured: run `erasediff export-onnx` again.")


def _data_files(attempt: Attempt, graphs: list[Path]) -> tuple[Pointer, ...]:
    """The files that hold the weights of graphs which are too large to hold them."""
    found = [path for graph in graphs if (path := data_file(graph)) is not None]
    return tuple(Pointer(uri=path.relative_to(attempt.folder).as_posix(), sha256=sha256_file(path)) for path in found)


def _remove_others(folder: Path, record: ExportedRecord) -> None:
    """Remove what an earlier or killed export left: the whole folder is registered."""
    for path in folder.iterdir():
        if path.name not in {Path(pointer.uri).name for pointer in record.files}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _served_model(erased: ErasedRecord, exported: ExportedRecord, guidance_scale: float, null_row: bool) -> ServedModel:
    """The manifest that a server reads; only a graph that passed gets one."""
    model = erased.model
    return ServedModel(
        made_from={"erased": erased.digest()},
        dataset=model.dataset,
        class_names=model.class_names,
        forgotten=model.forgotten,
        epoch=model.epoch,
        onnx=exported.onnx,
        solvers=exported.solvers,
        decoder=exported.decoder,
        data=exported.data,
        null_row=null_row,
        solver=exported.solver,
        guidance_scale=guidance_scale,
        weights_sha256=exported.weights_sha256,
        verdict=exported.verdict,
    )


def _with_rounded_weights(attempt: Attempt, served: Served, watch: Watch) -> Detections:
    """F8 on the graph with 8-bit weights, since rounding must not undo a small erasure. The graph is not kept."""
    with attempt.scratch() as folder:
        quantise(attempt.folder / ONNX, folder / "int8.onnx")
        rounded = replace(served, graph=OnnxGraph(folder / "int8.onnx"))
        return rounded.count(watch, attempt.policy().export.n, "F8.int8", attempt.evaluation_key(), "ONNX, 8 bits: forgotten label")
