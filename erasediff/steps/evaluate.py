"""Sample the base and the erased model with the committed seeds, and measure what the policy names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from erasediff.attempts.attempt import Attempt
from erasediff.data.datasets import dataset_of
from erasediff.evaluate.attacks import Suspect
from erasediff.evaluate.battery import attack, suspects
from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.measure import (
    Examination,
    ModelSamples,
    RetainedSamples,
    compare,
    count_detections,
    neighbours_for,
    sample_further,
    sample_model,
    train_reference,
    watch_for,
)
from erasediff.evaluate.real import RealImages, real_images
from erasediff.files import atomic_path, sha256_file
from erasediff.models.denoiser import resolve_device
from erasediff.models.folder import load_model
from erasediff.models.sampler import Source
from erasediff.records.attacks import AttackMeasurements, Detections
from erasediff.records.base import Pointer
from erasediff.records.config import RunConfig
from erasediff.records.core import BaseRecord, ErasedRecord
from erasediff.records.measurements import Measurements
from erasediff.steps.judges import classifier, extractor, neighbourhood
from erasediff.tracking import Tracking

SAMPLES = "samples.npz"
_GRID_COLUMNS = 8


def evaluate(attempt: Attempt) -> Measurements:
    """Measure this attempt.

    Raises:
        BadInput: an earlier step is missing.
    """
    base, erased = attempt.need(BaseRecord), attempt.need(ErasedRecord)
    config, policy, label = attempt.config(), attempt.policy(), attempt.plan().position
    device = resolve_device(config.device)
    real = real_images(dataset_of(config.dataset, base.model), config.dataset)
    detector = classifier(attempt, real)
    before, after = (load_model(attempt.workdir.models, record.model).sampled_by(config.sampler) for record in (base, erased))
    retained = [c for c in range(real.classes) if c not in erased.model.rows_forgotten]

    watch = watch_for(detector, real, label, retained, policy)
    exam = Examination(
        watch,
        neighbours_for(neighbourhood(attempt, real), real, label, retained, policy),
        extractor(attempt, real, detector),
        real,
        tuple(retained),
        policy,
        config.sampler,
        attempt.evaluation_key(),
        config.seed,
    )
    suspect = Suspect(after, before, label, exam.retained, config.sampler, device, config.seed)
    of_base = sample_model(exam, replace(suspect, model=before), "base")
    of_erased = sample_model(exam, suspect, "erased")
    reference = exam.kept(train_reference(exam, before, device), device, "reference")
    seen = [c for c in base.model.rows_forgotten if (real.holdout_labels == c).any()]
    earlier = {str(c): _still_forgotten(attempt, detector, real, after.source(device), c, retained) for c in seen}
    grid = _keep_grid(attempt, config, (of_base.retained, of_erased.retained), (of_base.forgotten_images, of_erased.forgotten_images))
    measured = compare(exam, of_base, of_erased, reference, earlier, grid)
    further = sample_further(exam, before.source(device), after.source(device), measured.retained.accuracy)
    unseen = tuple(c for c in base.model.rows_forgotten if c not in seen)
    measured = measured.model_copy(update={"retained": measured.retained.model_copy(update={"further": further}), "unseen": unseen})
    if policy.tier == 2:
        measured = measured.model_copy(update={"attacks": _attacked(exam, suspect, config, of_base, of_erased)})
    _log(attempt, measured)
    return measured


def _attacked(exam: Examination, suspect: Suspect, config: RunConfig, of_base: ModelSamples, of_erased: ModelSamples) -> AttackMeasurements:
    base_share = of_base.forgotten.detections / of_base.forgotten.n
    return attack(exam, suspects(exam, suspect, config), of_erased.forgotten_images, base_share)


def _still_forgotten(attempt: Attempt, detector: Detector, real: RealImages, after: Source, label: int, retained: list[int]) -> Detections:
    """F1 for a label that an earlier request made the model forget."""
    policy, watch = attempt.policy(), watch_for(detector, real, label, retained, attempt.policy())
    return count_detections(
        watch, after, policy.forget.n, f"F1.{label}", attempt.evaluation_key(), attempt.config().sampler, f"erased: label {label} forgotten before"
    )[0]


def _keep_grid(attempt: Attempt, config: RunConfig, retained: tuple[RetainedSamples, RetainedSamples], forgotten: tuple[Tensor, Tensor]) -> Pointer:
    """Keep a few samples for the report. Samples of the forgotten label are kept only if the config declares the data public."""
    labels = sorted({int(c) for c in retained[0].labels})
    arrays = {"labels": np.array(labels)}
    for name, samples in zip(("retained_before", "retained_after"), retained, strict=True):
        arrays[name] = np.stack([samples.images[samples.labels == c][:_GRID_COLUMNS].numpy() for c in labels])
    if config.report.show_forgotten:
        for name, images in zip(("forgotten_before", "forgotten_after"), forgotten, strict=True):
            arrays[name] = images[:_GRID_COLUMNS].numpy()[None]
    path = attempt.folder / SAMPLES
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)
    return Pointer(uri=SAMPLES, sha256=sha256_file(path))


def _log(attempt: Attempt, measured: Measurements) -> None:
    metrics: dict[str, float] = {"detector.accuracy": measured.detector.accuracy}
    for name, found in (("base", measured.forget_base), ("erased", measured.forget_erased)):
        if found is not None:
            metrics[f"forget.detection_rate.{name}"] = found.detections / found.n
    for probed in (*measured.probes, *((measured.unasked,) if measured.unasked else ())):
        for name, found in (("base", probed.base), ("erased", probed.erased)):
            metrics[f"forget.probe.{probed.name.replace(' ', '_')}.{name}"] = found.detections / found.n
    for row in measured.retained.accuracy:
        metrics[f"retain.accuracy.base.{row.label}"] = row.correct_base / row.n
        metrics[f"retain.accuracy.erased.{row.label}"] = row.correct_erased / row.n
    if (frechet := measured.retained.frechet) is not None:
        metrics |= {"retain.fd.base": frechet.fd_base, "retain.fd.erased": frechet.fd_erased}
    if (manifold := measured.retained.manifold) is not None and manifold.density is not None:
        metrics |= {"retain.density.base": manifold.density.base, "retain.density.erased": manifold.density.erased}
    Tracking(attempt.workdir.root).log_metrics(attempt.plan().mlflow_run_id, metrics)
