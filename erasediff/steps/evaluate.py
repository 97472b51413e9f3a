"""Sample base and erased model with the committed seeds and measure what the policy asks about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.data.datasets import load_dataset
from erasediff.data.partition import partition
from erasediff.evaluate.detectors import Detector, Watch, stored_detector
from erasediff.evaluate.sampling import Source, draw_samples
from erasediff.evaluate.seeds import check_seeds, evaluation_key
from erasediff.evaluate.statistics import frechet_difference
from erasediff.files import atomic_path, sha256_file
from erasediff.models.denoiser import resolve_device
from erasediff.models.folder import load_model
from erasediff.records.base import Pointer, canonical_json
from erasediff.records.config import RunConfig
from erasediff.records.nouns import BaseRecord, ClassAccuracy, Detections, ErasedRecord, FrechetChange, Measurements
from erasediff.records.policy import GatePolicy
from erasediff.records.workdir import Run
from erasediff.tracking import Tracking

SAMPLES = "samples.npz"
_GRID_COLUMNS = 8


@dataclass(frozen=True)
class RealImages:
    """Real images ``uint8 [N,H,W,C]`` with labels, apart by what may see them."""

    holdout: Tensor
    holdout_labels: Tensor
    train: Tensor
    train_labels: Tensor
    classes: int


@dataclass(frozen=True)
class RetainedSamples:
    """Samples of the retained labels with what the detector made of them."""

    images: Tensor
    labels: Tensor
    found: Tensor
    features: NDArray[np.float64]


def evaluate(run: Run) -> Measurements:
    """Measure this attempt.

    Raises:
        BadInput: an earlier step is missing.
    """
    base, erased = run.need(BaseRecord, "train-base"), run.need(ErasedRecord, "erase")
    made_from = {"base": base.digest(), "erased": erased.digest(), "policy": run.policy().digest()}
    return run.made(Measurements, made_from, lambda: _measure(run, base, erased))


def real_images(config: RunConfig) -> RealImages:
    """The dataset in two parts: held-out images for the detector, training images to measure the detector on."""
    dataset = load_dataset(config.dataset)
    part = partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed)

    def pick(values: NDArray[np.uint8] | NDArray[np.int64], chosen: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values[chosen])

    return RealImages(
        pick(dataset.images, part.holdout),
        pick(dataset.labels, part.holdout),
        pick(dataset.images, part.train),
        pick(dataset.labels, part.train),
        dataset.classes,
    )


def detector_of(run: Run, config: RunConfig, real: RealImages) -> Detector:
    """The detector for this dataset and config, trained on held-out images only."""
    made_from = {"dataset": run.plan().made_from["dataset"], "detector": config.detector.digest(), "split": config.dataset.digest()}
    name = hashlib.sha256(canonical_json(made_from)).hexdigest()[:16]
    path = run.workdir.detectors / f"{name}.safetensors"
    return stored_detector(path, real.holdout, real.holdout_labels, real.classes, config.detector)


def watch_for(detector: Detector, real: RealImages, label: int, retained: list[int], policy: GatePolicy) -> Watch:
    """The detector set to a label, its errors measured on real training images of that label and of the retained ones."""
    seen = torch.isin(real.train_labels, torch.tensor([label, *retained]))
    return detector.watch_for(real.train[seen], real.train_labels[seen], label, policy.control.min_true_positive_rate)


def count_detections(watch: Watch, source: Source, n: int, check: str, config: RunConfig, what: str) -> tuple[Detections, Tensor]:
    """Sample ``n`` images of the watched label with the seeds of ``check`` and count how often the detector calls them that."""
    labels = torch.full((n,), watch.label, dtype=torch.int64)
    images = draw_samples(source, labels, check_seeds(evaluation_key(config.seed), check, n), config.sampler, what)
    return watch.count(images), images


def _retained_samples(detector: Detector, source: Source, labels: list[int], n: int, config: RunConfig, what: str) -> RetainedSamples:
    wanted = torch.tensor(labels, dtype=torch.int64).repeat_interleave(n)
    seeds = check_seeds(evaluation_key(config.seed), "R1", len(wanted))
    images = draw_samples(source, wanted, seeds, config.sampler, what)
    found, features = detector.look(images)
    return RetainedSamples(images, wanted, found, features)


def _measure(run: Run, base: BaseRecord, erased: ErasedRecord) -> Measurements:
    config, policy, label = run.config(), run.policy(), run.plan().request.label
    device = resolve_device(config.device)
    real = real_images(config)
    detector = detector_of(run, config, real)
    before = Source.of(load_model(run.workdir.models, base.model), device)
    after = Source.of(load_model(run.workdir.models, erased.model), device)
    retained = [c for c in range(real.classes) if c not in erased.model.forgotten]

    watch = watch_for(detector, real, label, retained, policy)
    forget_base, base_images = count_detections(watch, before, policy.forget.n, "F1", config, "base: forgotten label")
    forget_erased, erased_images = count_detections(watch, after, policy.forget.n, "F1", config, "erased: forgotten label")
    earlier = {
        str(c): count_detections(
            watch_for(detector, real, c, retained, policy), after, policy.forget.n, f"F1.{c}", config, f"erased: label {c} forgotten before"
        )[0]
        for c in base.model.forgotten
    }
    n = policy.retain.n_per_class
    kept_base = _retained_samples(detector, before, retained, n, config, "base: retained labels")
    kept_erased = _retained_samples(detector, after, retained, n, config, "erased: retained labels")

    measured = Measurements(
        label=label,
        classes=real.classes,
        detector=watch.quality,
        forget_base=forget_base,
        forget_erased=forget_erased,
        earlier=earlier,
        retained=_class_accuracy(kept_base, kept_erased, retained),
        nearest=detector.nearest(real.holdout, real.holdout_labels, label, retained, policy.retain.nearest),
        frechet=_frechet(policy, detector, real, retained, kept_base, kept_erased, config.seed),
        samples=_keep_grid(run, config, (kept_base, kept_erased), (base_images, erased_images)),
    )
    _log(run, measured)
    return measured


def _class_accuracy(base: RetainedSamples, erased: RetainedSamples, labels: list[int]) -> tuple[ClassAccuracy, ...]:
    rows = []
    for label in labels:
        asked = base.labels == label
        correct_base, correct_erased = (int((s.found[asked] == label).sum()) for s in (base, erased))
        rows.append(ClassAccuracy(label=label, n=int(asked.sum()), correct_base=correct_base, correct_erased=correct_erased))
    return tuple(rows)


def _frechet(
    policy: GatePolicy, detector: Detector, real: RealImages, retained: list[int], base: RetainedSamples, erased: RetainedSamples, seed: int
) -> FrechetChange:
    """Distances to the held-out real images of the retained labels: no denoiser was trained on them, so memory earns nothing."""
    wanted = torch.isin(real.holdout_labels, torch.tensor(retained))
    _, reference = detector.look(real.holdout[wanted])
    rng = np.random.default_rng(seed)
    found = frechet_difference(base.features, erased.features, base.labels.numpy(), reference, policy.fidelity.resamples, rng)
    return FrechetChange(
        n=len(base.features),
        fd_base=found.fd_base,
        fd_erased=found.fd_candidate,
        bootstrap_mean=found.bootstrap_mean,
        bootstrap_sd=found.bootstrap_sd,
        resamples=policy.fidelity.resamples,
    )


def _keep_grid(run: Run, config: RunConfig, retained: tuple[RetainedSamples, RetainedSamples], forgotten: tuple[Tensor, Tensor]) -> Pointer:
    """Keep a few samples for the report. Samples of the forgotten label are kept only where the config says they are public."""
    labels = sorted({int(c) for c in retained[0].labels})
    arrays = {"labels": np.array(labels)}
    for name, samples in zip(("retained_before", "retained_after"), retained, strict=True):
        arrays[name] = np.stack([samples.images[samples.labels == c][:_GRID_COLUMNS].numpy() for c in labels])
    if config.report.show_forgotten:
        for name, images in zip(("forgotten_before", "forgotten_after"), forgotten, strict=True):
            arrays[name] = images[:_GRID_COLUMNS].numpy()[None]
    path = run.folder / SAMPLES
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)
    return Pointer(uri=SAMPLES, sha256=sha256_file(path))


def _log(run: Run, measured: Measurements) -> None:
    metrics: dict[str, float] = {"detector.accuracy": measured.detector.accuracy}
    for name, found in (("base", measured.forget_base), ("erased", measured.forget_erased)):
        if found is not None:
            metrics[f"forget.detection_rate.{name}"] = found.detections / found.n
    for row in measured.retained:
        metrics[f"retain.accuracy.base.{row.label}"] = row.correct_base / row.n
        metrics[f"retain.accuracy.erased.{row.label}"] = row.correct_erased / row.n
    if measured.frechet is not None:
        metrics |= {"retain.fd.base": measured.frechet.fd_base, "retain.fd.erased": measured.frechet.fd_erased}
    Tracking(run.workdir.root).log_metrics(run.plan().mlflow_run_id, metrics)
