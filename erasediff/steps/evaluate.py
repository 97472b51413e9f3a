"""Sample the base and the erased model with the committed seeds, and measure what the policy names."""

from __future__ import annotations

import numpy as np

from erasediff.attempts.attempt import Attempt
from erasediff.data.datasets import dataset_of
from erasediff.evaluate.examine import Asked, Bench, Examined, examine
from erasediff.evaluate.real import real_images
from erasediff.files import atomic_path, sha256_file
from erasediff.models.folder import load_model
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
    config = attempt.config()
    real = real_images(dataset_of(config.dataset, base.model), config.dataset)
    detector = classifier(attempt, real)
    before, after = (load_model(attempt.workdir.models, record.model).sampled_by(config.sampler) for record in (base, erased))
    asked = Asked(attempt.plan().position, erased.model.rows_forgotten, base.model.rows_forgotten, attempt.policy(), attempt.evaluation_key())
    bench = Bench(detector, neighbourhood(attempt, real), extractor(attempt, real, detector))
    examined = examine(bench, real, asked, before, after, config)
    measured = examined.measured.model_copy(update={"samples": _keep_grid(attempt, config, examined)})
    _log(attempt, measured)
    return measured


def _keep_grid(attempt: Attempt, config: RunConfig, examined: Examined) -> Pointer:
    """Keep a few samples for the report. Samples of the forgotten label are kept only if the config declares the data public."""
    retained, forgotten = (
        (examined.base.retained, examined.erased.retained),
        (examined.base.forgotten_images, examined.erased.forgotten_images),
    )
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
