"""One examination from its beginning to its end: who looks at what, and everything that the gate may ask of base and candidate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from erasediff.evaluate.attacks import Suspect
from erasediff.evaluate.battery import attack, suspects
from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.features.extractor import FeatureExtractor
from erasediff.evaluate.measure import (
    Examination,
    ModelSamples,
    compare,
    count_detections,
    neighbours_for,
    sample_further,
    sample_model,
    train_reference,
    watch_for,
)
from erasediff.evaluate.neighbours import Neighbourhood
from erasediff.evaluate.real import RealImages
from erasediff.models.denoiser import resolve_device
from erasediff.models.family import Model
from erasediff.models.sampler import Source
from erasediff.records.attacks import AttackMeasurements, Detections
from erasediff.records.config import RunConfig
from erasediff.records.measurements import Measurements
from erasediff.records.policy import GatePolicy


@dataclass(frozen=True)
class Bench:
    """The judges of an examination: two detectors and what images are compared by."""

    detector: Detector
    neighbours: Neighbourhood
    extractor: FeatureExtractor


@dataclass(frozen=True)
class Asked:
    """What an examination asks: of which class, beside which classes that are forgotten with it or were before, by which policy.

    ``key`` is that of the evaluation seeds. Classes are rows.
    """

    label: int
    forgotten: tuple[int, ...]
    before: tuple[int, ...]
    policy: GatePolicy
    key: bytes


@dataclass(frozen=True)
class Examined:
    """What was measured, with the samples that it was measured on."""

    measured: Measurements
    base: ModelSamples
    erased: ModelSamples


def examine(bench: Bench, real: RealImages, asked: Asked, base: Model, erased: Model, config: RunConfig) -> Examined:
    """Sample both models with the same seeds, and measure what the policy names.

    Args:
        bench: who looks.
        real: the dataset as judges see it.
        asked: what is asked.
        base: the model before; it is moved to the device, as is ``erased``.
        erased: the candidate.
        config: sampler, device and seed.
    """
    policy, device = asked.policy, resolve_device(config.device)
    exam = _examination(bench, real, asked, config)
    suspect = Suspect(erased, base, asked.label, exam.retained, config.sampler, device, config.seed)
    of_base = sample_model(exam, replace(suspect, model=base), "base")
    of_erased = sample_model(exam, suspect, "erased")
    reference = exam.kept(train_reference(exam, base, device), device, "reference")
    seen = [row for row in asked.before if (real.holdout_labels == row).any()]
    earlier = {str(row): _still_forgotten(bench.detector, exam, erased.source(device), row) for row in seen}
    measured = compare(exam, of_base, of_erased, reference, earlier, None)
    further = sample_further(exam, base.source(device), erased.source(device), measured.retained.accuracy)
    unseen = tuple(row for row in asked.before if row not in seen)
    measured = measured.model_copy(update={"retained": measured.retained.model_copy(update={"further": further}), "unseen": unseen})
    if policy.tier == 2:
        measured = measured.model_copy(update={"attacks": _attacked(exam, suspect, config, of_base, of_erased)})
    return Examined(measured, of_base, of_erased)


def _examination(bench: Bench, real: RealImages, asked: Asked, config: RunConfig) -> Examination:
    retained, policy = [row for row in range(real.classes) if row not in asked.forgotten], asked.policy
    return Examination(
        watch_for(bench.detector, real, asked.label, retained, policy),
        neighbours_for(bench.neighbours, real, asked.label, retained, policy),
        bench.extractor,
        real,
        tuple(retained),
        policy,
        config.sampler,
        asked.key,
        config.seed,
    )


def _still_forgotten(detector: Detector, exam: Examination, after: Source, label: int) -> Detections:
    """F1 for a label that an earlier request made the model forget."""
    policy, watch = exam.policy, watch_for(detector, exam.real, label, list(exam.retained), exam.policy)
    what = f"erased: label {label} forgotten before"
    return count_detections(watch, after, policy.forget.n, f"F1.{label}", exam.key, exam.sampler, what)[0]


def _attacked(exam: Examination, suspect: Suspect, config: RunConfig, of_base: ModelSamples, of_erased: ModelSamples) -> AttackMeasurements:
    base_share = of_base.forgotten.detections / of_base.forgotten.n
    return attack(exam, suspects(exam, suspect, config), of_erased.forgotten_images, base_share)
