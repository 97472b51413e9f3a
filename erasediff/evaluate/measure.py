"""Measure a model: sample it with the committed seeds, let the detector look, compare with the base."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasediff.data.datasets import load_dataset
from erasediff.data.partition import partition
from erasediff.evaluate.attacks import Suspect, look, probe_named, unasked
from erasediff.evaluate.detectors import Detector, Watch
from erasediff.evaluate.fidelity import Arms, evenly, frechet_change, kernel_change, manifold_change
from erasediff.evaluate.sampling import Source, draw_samples
from erasediff.evaluate.seeds import check_seeds, evaluation_key
from erasediff.records.base import Pointer
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ClassAccuracy, Detections, Measurements, Probed
from erasediff.records.policy import GatePolicy


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


@dataclass(frozen=True)
class ModelSamples:
    """What one model made of the label to forget, unasked, asked otherwise, and of the retained labels."""

    forgotten: Detections
    forgotten_images: Tensor
    unasked: Detections
    probes: dict[str, Detections]
    retained: RetainedSamples


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


def watch_for(detector: Detector, real: RealImages, label: int, retained: list[int], policy: GatePolicy) -> Watch:
    """The detector set to a label, its errors measured on real training images of that label and of the retained ones."""
    seen = torch.isin(real.train_labels, torch.tensor([label, *retained]))
    return detector.watch_for(real.train[seen], real.train_labels[seen], label, policy.control.min_true_positive_rate)


def count_detections(watch: Watch, source: Source, n: int, check: str, config: RunConfig, what: str) -> tuple[Detections, Tensor]:
    """Sample ``n`` images of the watched label with the seeds of ``check`` and count how often the detector calls them that."""
    labels = torch.full((n,), watch.label, dtype=torch.int64)
    images = draw_samples(source, labels, check_seeds(evaluation_key(config.seed), check, n), config.sampler, what)
    return watch.count(images), images


def retained_samples(detector: Detector, source: Source, labels: list[int], n: int, config: RunConfig, what: str) -> RetainedSamples:
    """Sample ``n`` images of each of the labels with the seeds of R1 and let the detector look."""
    wanted = torch.tensor(labels, dtype=torch.int64).repeat_interleave(n)
    seeds = check_seeds(evaluation_key(config.seed), "R1", len(wanted))
    images = draw_samples(source, wanted, seeds, config.sampler, what)
    found, features = detector.look(images)
    return RetainedSamples(images, wanted, found, features)


def sample_model(watch: Watch, suspect: Suspect, policy: GatePolicy, config: RunConfig, name: str) -> ModelSamples:
    """Sample what F1 to F3, R1 and R2 ask of one model; base and candidate with the same seeds."""
    source, key = Source.of(suspect.model, suspect.device), evaluation_key(config.seed)
    found, images = count_detections(watch, source, policy.forget.n, "F1", config, f"{name}: forgotten label")
    by_null = look(watch, unasked(suspect), policy.unasked.n, key, "F2", name)
    probes = {way: look(watch, probe_named(suspect, way), policy.probes.n, key, "F3", name) for way in policy.probes.ask}
    kept = retained_samples(watch.detector, source, list(suspect.retained), policy.retain.n_per_class, config, f"{name}: retained labels")
    return ModelSamples(found, images, by_null, probes, kept)


def compare(
    watch: Watch,
    real: RealImages,
    base: ModelSamples,
    erased: ModelSamples,
    retained: list[int],
    policy: GatePolicy,
    seed: int,
    earlier: dict[str, Detections],
    samples: Pointer | None,
) -> Measurements:
    """Everything the gate may look at."""
    arms, fidelity = _arms(watch.detector, real, retained, base.retained, erased.retained), policy.fidelity
    nearest = watch.detector.nearest(real.holdout, real.holdout_labels, watch.label, retained, policy.retain.nearest)
    return Measurements(
        label=watch.label,
        classes=real.classes,
        detector=watch.quality,
        forget_base=base.forgotten,
        forget_erased=erased.forgotten,
        unasked=Probed(name="null label", base=base.unasked, erased=erased.unasked),
        probes=tuple(Probed(name=name, base=base.probes[name], erased=found) for name, found in erased.probes.items()),
        earlier=earlier,
        retained=_class_accuracy(base.retained, erased.retained, retained),
        nearest=nearest,
        frechet=frechet_change(arms, fidelity, seed),
        kernel=kernel_change(arms, fidelity, seed),
        manifold=manifold_change(arms, fidelity.neighbours),
        samples=samples,
    )


def _class_accuracy(base: RetainedSamples, erased: RetainedSamples, labels: list[int]) -> tuple[ClassAccuracy, ...]:
    rows = []
    for label in labels:
        asked = base.labels == label
        was, is_ = base.found[asked] == label, erased.found[asked] == label
        counts = {"correct_base": int(was.sum()), "correct_erased": int(is_.sum()), "correct_both": int((was & is_).sum())}
        rows.append(ClassAccuracy(label=label, n=int(asked.sum()), **counts))
    return tuple(rows)


def _arms(detector: Detector, real: RealImages, retained: list[int], base: RetainedSamples, erased: RetainedSamples) -> Arms:
    """Features of both models' samples and of held-out real images of the retained labels, no more of them than of samples."""
    wanted = torch.isin(real.holdout_labels, torch.tensor(retained)).nonzero().flatten()
    _, reference = detector.look(real.holdout[wanted[evenly(len(wanted), len(base.features))]])
    return Arms(base.features, erased.features, base.labels.numpy(), reference)
