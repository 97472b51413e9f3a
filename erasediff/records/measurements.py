"""What is measured of base and erased model: the counts and numbers that the gate decides on."""

from __future__ import annotations

from pydantic import Field

from erasediff.records.attacks import AttackMeasurements, Detections
from erasediff.records.base import Pointer, Probability, Record, Sha256, Strict


class Probed(Strict):
    """What one way of asking for the forgotten class brought, of the base and of the erased model."""

    name: str
    base: Detections
    erased: Detections


class ClassAccuracy(Strict):
    """How often the detector agreed with the label that was asked for, base against erased, and both from the same noise."""

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
    """How many neighbourhoods of real images a generated one lies in, in units of their size: no share, and it may exceed 1."""

    base: float = Field(ge=0)
    erased: float = Field(ge=0)


class ManifoldChange(Strict):
    """Generated images inside the manifold of real ones (precision), real ones inside that of generated ones (recall), and coverage.

    Density is reported and decides nothing.
    """

    precision: PairedCounts
    recall: PairedCounts
    coverage: PairedCounts
    density: Density | None = None


class DetectorQuality(Strict):
    """The detector's own error on real images it was not trained on: rates for the forgotten class.

    ``threshold`` is the probability from which on an image counts as detected though another class is more likely; it is
    set where the most likely class alone would miss too many real images.
    """

    sha256: Sha256
    accuracy: Probability
    true_positive_rate: Probability
    false_positive_rate: Probability
    holdout_positives: int = Field(ge=0)
    holdout_negatives: int = Field(default=0, ge=0)
    threshold: float | None = None


class Witness(Strict):
    """A second detector's own error, and what it saw on the samples that F1 is about."""

    quality: DetectorQuality
    base: Detections
    erased: Detections


class RetainMeasurements(Strict):
    """The retained classes of a model against the base's, from the same noise.

    ``further`` has all samples of the classes that were asked again, those of ``accuracy`` among them.
    """

    accuracy: tuple[ClassAccuracy, ...]
    further: tuple[ClassAccuracy, ...] = ()
    frechet: FrechetChange | None
    kernel: KernelChange | None
    manifold: ManifoldChange | None


class Measurements(Record):
    """Everything the gate may look at. A value that was not measured is ``None`` and can never pass.

    ``reference`` is the base after a little training on retained images: whatever the gate asks of retained classes, it passes.
    ``attacks`` are those of tier 2.
    ``kinship`` says how alike base and candidate read their label embedding: 1 for a copy, 0 for a network trained apart.
    ``features`` is the digest of the extractor whose features R2 and R3 compare.
    """

    label: int
    classes: int = Field(ge=2)
    detector: DetectorQuality
    features: Sha256
    forget_base: Detections | None
    forget_erased: Detections | None
    neighbours: Witness | None
    unasked: Probed | None
    probes: tuple[Probed, ...]
    kinship: float | None = None
    earlier: dict[str, Detections] = Field(default_factory=dict)
    nearest: tuple[int, ...]
    retained: RetainMeasurements
    reference: RetainMeasurements | None
    attacks: AttackMeasurements | None = None
    samples: Pointer | None
