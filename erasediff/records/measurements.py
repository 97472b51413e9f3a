"""The measurements of the base and the erased model, on which the gate decides."""

from __future__ import annotations

from pydantic import Field

from erasediff.records.attacks import AttackMeasurements, Detections
from erasediff.records.base import Pointer, Probability, Record, Sha256, Strict
from erasediff.records.names import ClassName


class Probed(Strict):
    """The detections of one probe on the base and on the erased model."""

    name: str
    base: Detections
    erased: Detections


class ClassAccuracy(Strict):
    """How often the detector agreed with the sampled label, for the base, the erased model, and both from the same noise."""

    label: int
    n: int = Field(ge=0)
    correct_base: int = Field(ge=0)
    correct_erased: int = Field(ge=0)
    correct_both: int = Field(ge=0)


class FrechetChange(Strict):
    """Fréchet distances at equal ``n`` and the bootstrap of their difference D = FD(erased) - FD(base)."""

    n: int = Field(ge=0)
    fd_base: float
    fd_erased: float
    bootstrap_mean: float
    bootstrap_sd: float = Field(ge=0)
    resamples: int = Field(ge=0)


class KernelChange(Strict):
    """Kernel distances (KID) at equal ``n``, by blocks: the base's, and the mean and spread of erased - base."""

    n: int = Field(ge=0)
    base: float
    difference: float
    block_sd: float = Field(ge=0)
    blocks: int = Field(ge=0)


class PairedCounts(Strict):
    """How many of ``n`` things hold for the base, for the erased model, and for both."""

    n: int = Field(ge=0)
    base: int = Field(ge=0)
    erased: int = Field(ge=0)
    both: int = Field(ge=0)


class Density(Strict):
    """The mean number of real images' neighbourhoods that a generated image lies in, divided by k; it may exceed 1."""

    base: float = Field(ge=0)
    erased: float = Field(ge=0)


class ManifoldChange(Strict):
    """Generated images in the manifold of real ones (precision), real ones in that of generated ones (recall), and coverage.

    Density is only reported.
    """

    precision: PairedCounts
    recall: PairedCounts
    coverage: PairedCounts
    density: Density | None = None


class DetectorQuality(Strict):
    """The detector's error rates for the forgotten class, on real images that it was not trained on.

    ``threshold`` is the probability above which an image counts as detected even if another class is more likely; it is set if the most likely
    class alone would miss too many real images.
    """

    sha256: Sha256
    accuracy: Probability
    true_positive_rate: Probability
    false_positive_rate: Probability
    holdout_positives: int = Field(ge=0)
    holdout_negatives: int = Field(default=0, ge=0)
    threshold: float | None = None


class Witness(Strict):
    """A second detector's error rates, and its detections on the samples of F1."""

    quality: DetectorQuality
    base: Detections
    erased: Detections


class RetainMeasurements(Strict):
    """A model's retained classes compared with the base's, from the same noise.

    ``further`` counts all samples of the classes that got further samples, including those of ``accuracy``.
    """

    accuracy: tuple[ClassAccuracy, ...]
    further: tuple[ClassAccuracy, ...] = ()
    frechet: FrechetChange | None
    kernel: KernelChange | None
    manifold: ManifoldChange | None


class Measurements(Record):
    """Everything that the gate decides on. A value that was not measured is ``None`` and cannot pass.

    Classes are rows here; ``class_names`` are their names, in order.
    ``earlier`` are detections of classes that were forgotten before; ``unseen`` are those of them of which the dataset has no picture any more.
    ``reference`` is the base after a little training on retained images; it must pass R1 to R3.
    ``attacks`` are those of tier 2.
    ``unasked`` counts samples of the null row; a model that was trained without one has ``null_row`` false, and is not asked what needs one.
    ``kinship`` compares how base and candidate read their label embedding: 1 for a copy, 0 for a network trained independently.
    ``features`` is the digest of the feature extractor of R2 and R3.
    """

    label: int
    class_names: tuple[ClassName, ...] = Field(min_length=2)
    detector: DetectorQuality
    features: Sha256
    forget_base: Detections | None
    forget_erased: Detections | None
    neighbours: Witness | None
    null_row: bool = True
    unasked: Probed | None
    probes: tuple[Probed, ...]
    kinship: float | None = None
    earlier: dict[str, Detections] = Field(default_factory=dict)
    unseen: tuple[int, ...] = ()
    nearest: tuple[int, ...]
    retained: RetainMeasurements
    reference: RetainMeasurements | None
    attacks: AttackMeasurements | None = None
    samples: Pointer | None
