"""Measure a model: sample it with the committed seeds, let the detector look, compare with the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from erasediff.data.rows import Rows, Writer
from erasediff.evaluate.attacks import Suspect, null_label_probe, probe_named, sample_and_count
from erasediff.evaluate.attacks.embeddings import kinship
from erasediff.evaluate.attacks.training import Budget, trained_on
from erasediff.evaluate.detectors import Detector, Watch
from erasediff.evaluate.features.extractor import FeatureExtractor
from erasediff.evaluate.features.store import BLOCK, blocks, extract, images_in_file
from erasediff.evaluate.fidelity import Arms, evenly, frechet_change, kernel_change, manifold_change
from erasediff.evaluate.gate.retain import samples_needed
from erasediff.evaluate.neighbours import Neighbourhood, NeighbourWatch
from erasediff.evaluate.real import RealImages
from erasediff.evaluate.sampling import draw_batches, draw_samples
from erasediff.evaluate.seeds import check_seeds
from erasediff.evaluate.statistics import Table
from erasediff.models.family import Model
from erasediff.models.sampler import Source
from erasediff.records.attacks import Detections
from erasediff.records.base import Pointer
from erasediff.records.config import SamplerConfig
from erasediff.records.measurements import ClassAccuracy, Measurements, Probed, RetainMeasurements, Witness
from erasediff.records.policy import GatePolicy

_MEASURED_ON = 8000  # images that the neighbours' errors are measured on


@dataclass(frozen=True)
class RetainedSamples:
    """Samples of the retained labels ``[N,H,W,C]``, what the detector calls them ``[N]`` and their features ``[N,d]``.

    Images and features lie in files.
    """

    images: Tensor
    labels: Tensor
    found: Tensor
    features: Table


@dataclass(frozen=True)
class SampleReader:
    """Who looks at retained samples: the detector says what they are, the extractor what they look like."""

    detector: Detector
    extractor: FeatureExtractor

    def read(self, batches: Iterable[Tensor], labels: Tensor) -> RetainedSamples:
        """Look at images ``uint8 [N,H,W,C]`` of ``labels [N]`` that come in batches; no more than a block of them is in memory."""
        images, features, found = Writer(), Writer(), []
        for block in blocks(batches):
            images.append(block.numpy())
            features.append(self.extractor.features(block))
            found.append(self.detector.labels(block))
        return RetainedSamples(images_in_file(images), labels, torch.cat(found), Rows(features))


@dataclass(frozen=True)
class ModelSamples:
    """What one model makes of the forgotten label, of the null label, of the probes and of the retained labels."""

    forgotten: Detections
    forgotten_images: Tensor
    neighbours: Detections
    unasked: Detections | None
    probes: dict[str, Detections]
    retained: RetainedSamples
    kinship: float | None = None
    """How alike this model and the base read their embedding."""


def watch_for(detector: Detector, real: RealImages, label: int, retained: list[int], policy: GatePolicy) -> Watch:
    """The detector set to a label, its errors measured on real training images of that label and of the retained ones."""
    seen = torch.isin(real.train_labels, torch.tensor([label, *retained]))
    return detector.watch_for(real.train[seen], real.train_labels[seen], label, policy.control.min_true_positive_rate)


def neighbours_for(neighbourhood: Neighbourhood, real: RealImages, label: int, retained: Sequence[int], policy: GatePolicy) -> NeighbourWatch:
    """The second detector set to a label; its errors are measured on training images."""
    seen = torch.isin(real.train_labels, torch.tensor([label, *retained])).nonzero().flatten()
    some = seen[evenly(len(seen), _MEASURED_ON)]
    sensitivity = policy.control.min_true_positive_rate
    return neighbourhood.watch_for(real.train[some], real.train_labels[some], label, sensitivity)


def count_detections(watch: Watch, source: Source, n: int, check: str, key: bytes, sampler: SamplerConfig, what: str) -> tuple[Detections, Tensor]:
    """Sample ``n`` images of the watched label with the seeds of ``check`` and count how often the detector calls them that."""
    labels = torch.full((n,), watch.label, dtype=torch.int64)
    images = draw_samples(source, labels, check_seeds(key, check, n), sampler, what)
    return watch.count(images), images


def retained_samples(
    reader: SampleReader, source: Source, labels: Sequence[int], n: int, key: bytes, sampler: SamplerConfig, what: str
) -> RetainedSamples:
    """Sample ``n`` images of each of the labels with the seeds of R1 and look at them as they come."""
    wanted = torch.tensor(labels, dtype=torch.int64).repeat_interleave(n)
    return reader.read(draw_batches(source, wanted, check_seeds(key, "R1", len(wanted)), sampler, what), wanted)


@dataclass(frozen=True)
class Examination:
    """What decides a measurement beside the models: who looks, real images, what the policy asks, and the seeds.

    ``key`` is that of the evaluation seeds, ``seed`` the run's.
    """

    watch: Watch
    neighbours: NeighbourWatch
    extractor: FeatureExtractor
    real: RealImages
    retained: tuple[int, ...]
    policy: GatePolicy
    sampler: SamplerConfig
    key: bytes
    seed: int

    def kept(self, model: Model, device: torch.device, name: str) -> RetainedSamples:
        """Sample what R1 to R3 ask of one model; all with the same seeds."""
        n, what = self.policy.retain.n_per_class, f"{name}: retained labels"
        return retained_samples(self.reader, model.source(device), self.retained, n, self.key, self.sampler, what)

    @property
    def reader(self) -> SampleReader:
        """Who looks at retained samples."""
        return SampleReader(self.watch.detector, self.extractor)

    @cached_property
    def reference(self) -> Table:
        """Features of held-out real images of the retained labels: no denoiser was trained on them."""
        rows = torch.isin(self.real.holdout_labels, torch.tensor(self.retained)).nonzero().flatten()
        return extract(self.extractor, (self.real.holdout[part] for part in torch.split(rows, BLOCK)))


def sample_model(exam: Examination, suspect: Suspect, name: str) -> ModelSamples:
    """Sample all that is asked of one model; base and candidate with the same seeds."""
    source = suspect.model.source(suspect.device)
    found, images = count_detections(exam.watch, source, exam.policy.forget.n, "F1", exam.key, exam.sampler, f"{name}: forgotten label")
    by_null, probes = sample_indirectly(exam, suspect, name)
    near, kept = exam.neighbours.count(images), exam.kept(suspect.model, suspect.device, name)
    return ModelSamples(found, images, near, by_null, probes, kept, kinship(suspect.base, suspect.model))


def sample_indirectly(exam: Examination, suspect: Suspect, name: str) -> tuple[Detections | None, dict[str, Detections]]:
    """F2 and F3: detections under the null row, if the model has one, and under each probe of the policy that can be asked of it."""
    watch, policy, key = exam.watch, exam.policy, exam.key
    has_null = suspect.model.null_row is not None
    by_null = sample_and_count(watch, null_label_probe(suspect), policy.unasked.n, key, "F2", name) if has_null else None
    asked = policy.probes.asked_of(has_null)
    return by_null, {way: sample_and_count(watch, probe_named(suspect, way), policy.probes.n, key, "F3", name) for way in asked}


def train_reference(exam: Examination, base: Model, device: torch.device) -> Model:
    """The base after a little training on retained images: the model that the gate's control C0.reference lets pass."""
    rule, stays = exam.policy.control, torch.isin(exam.real.train_labels, torch.tensor(exam.retained))
    images, labels = exam.real.train[stays], exam.real.train_labels[stays]
    return trained_on(base, images, labels, Budget(rule.reference_steps, rule.reference_rate), device, exam.seed, "training the reference")


def compare(
    exam: Examination,
    base: ModelSamples,
    erased: ModelSamples,
    reference: RetainedSamples,
    earlier: dict[str, Detections],
    samples: Pointer | None,
) -> Measurements:
    """Everything the gate may look at."""
    watch, real, retained = exam.watch, exam.real, list(exam.retained)
    return Measurements(
        label=watch.label,
        class_names=real.class_names,
        detector=watch.quality,
        features=exam.extractor.digest,
        forget_base=base.forgotten,
        forget_erased=erased.forgotten,
        neighbours=Witness(quality=exam.neighbours.quality, base=base.neighbours, erased=erased.neighbours),
        null_row=base.unasked is not None,
        unasked=Probed(name="null label", base=base.unasked, erased=erased.unasked) if base.unasked and erased.unasked else None,
        probes=tuple(Probed(name=name, base=base.probes[name], erased=found) for name, found in erased.probes.items()),
        kinship=erased.kinship,
        earlier=earlier,
        nearest=watch.detector.nearest(real.holdout, real.holdout_labels, watch.label, retained, exam.policy.retain.nearest),
        retained=retain_measurements(exam, base.retained, erased.retained),
        reference=retain_measurements(exam, base.retained, reference),
        samples=samples,
    )


def sample_further(exam: Examination, base: Source, erased: Source, rows: Sequence[ClassAccuracy]) -> tuple[ClassAccuracy, ...]:
    """R1.class once more for the classes on which base and candidate disagree often, with seeds of its own; each with all its samples."""
    found = []
    for row in rows:
        more = samples_needed(row, exam.policy.retain) - row.n
        if more <= 0:
            continue
        seeds, labels = check_seeds(exam.key, f"R1.class.{row.label}", more), torch.full((more,), row.label, dtype=torch.int64)
        was, is_ = (
            exam.watch.detector.labels(draw_samples(source, labels, seeds, exam.sampler, f"{name}: label {row.label} again")) == row.label
            for name, source in (("base", base), ("erased", erased))
        )
        counts = {"correct_base": int(was.sum()), "correct_erased": int(is_.sum()), "correct_both": int((was & is_).sum())}
        found.append(ClassAccuracy(label=row.label, n=row.n + more, **{name: getattr(row, name) + count for name, count in counts.items()}))
    return tuple(found)


def retain_measurements(exam: Examination, base: RetainedSamples, other: RetainedSamples) -> RetainMeasurements:
    """What R1 to R3 ask of one model's retained classes against the base's."""
    arms = Arms(base.features, other.features, base.labels.numpy(), exam.reference)
    rule, seed = exam.policy.fidelity, exam.seed
    return RetainMeasurements(
        accuracy=_class_accuracy(base, other, exam.retained),
        frechet=frechet_change(arms, rule, seed),
        kernel=kernel_change(arms, rule, seed),
        manifold=manifold_change(arms, rule.neighbours),
    )


def _class_accuracy(base: RetainedSamples, erased: RetainedSamples, labels: Sequence[int]) -> tuple[ClassAccuracy, ...]:
    rows = []
    for label in labels:
        asked = base.labels == label
        was, is_ = base.found[asked] == label, erased.found[asked] == label
        counts = {"correct_base": int(was.sum()), "correct_erased": int(is_.sum()), "correct_both": int((was & is_).sum())}
        rows.append(ClassAccuracy(label=label, n=int(asked.sum()), **counts))
    return tuple(rows)
