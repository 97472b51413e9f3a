"""Tier 2 of a gate's policy and its measurements: attacks by training, from real images, and on membership."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from erasediff.records.base import Probability, Strict


class Detections(Strict):
    """How many of ``n`` samples a detector assigned to the forgotten class.

    The reference counts the same for real images of other classes: the detector's false positives.
    """

    n: int = Field(ge=0)
    detections: int = Field(ge=0)
    reference_n: int = Field(default=0, ge=0)
    reference_detections: int = Field(default=0, ge=0)


class FinetuningPolicy(Strict):
    """F4: training on retained images only, and the limit of detections afterwards."""

    steps: int = Field(ge=1, le=1_000_000)
    learning_rate: float = Field(gt=0)
    max_upper: float = Field(gt=0, lt=1)


class InversionPolicy(Strict):
    """F5: the inversion of an embedding from a few images, and the limit of detections."""

    images: int = Field(ge=1, le=10_000)
    steps: int = Field(ge=1, le=1_000_000)
    learning_rate: float = Field(gt=0)
    max_upper: float = Field(gt=0, lt=1)


class RelearningPolicy(Strict):
    """F6: relearning from a few forgotten images; ``looks`` are the steps after which detections are counted.

    The steps until half of the class is back must be at least ``min_ratio`` of those of a model that never saw the class.
    """

    images: int = Field(ge=1, le=10_000)
    learning_rate: float = Field(gt=0)
    looks: tuple[int, ...] = Field(min_length=1, max_length=256)
    samples: int = Field(ge=1, le=1_000_000, description="samples per look")
    repeats: int = Field(ge=1, le=100)
    min_ratio: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.looks[0] < 1 or list(self.looks) != sorted(set(self.looks)):
            raise ValueError("looks are steps from 1, each later than the one before")
        return self


class PartialPolicy(Strict):
    """F3.partial: denoising of noised real images of the class (SDEdit, Meng et al. 2108.01073)."""

    strength: float = Field(gt=0, le=1, description="share of the timesteps that is noised and denoised")
    max_upper: float = Field(gt=0, lt=1, description="of the excess over a model without the class")


class ReachPolicy(Strict):
    """F7: the share of real images of the forgotten class with a sample nearer than their k-th real neighbour."""

    neighbours: int = Field(ge=1, le=100)
    images: int = Field(ge=1, le=1_000_000, description="minimum of real images of the class")
    max_upper: float = Field(gt=0, lt=1)


class MembershipPolicy(Strict):
    """F9: the margin around an AUC of 0.5 for membership attacks, and the power that the test needs."""

    margin: float = Field(gt=0, lt=0.5)
    power: float = Field(gt=0, lt=1)
    images: int = Field(ge=2, le=1_000_000, description="maximum of members, and of controls")


class QuantisedPolicy(Strict):
    """F8.int8: F8 on the graph with 8-bit weights."""

    max_upper: float = Field(gt=0, lt=1)


class AttackPolicy(Strict):
    """The attacks of tier 2. Each is also run on the base, where it must succeed.

    ``retrain`` trains a model without the class for comparison, which costs as much as the base's training. ``weights_released`` says that users
    get the weights: then the attacks that need them decide, instead of only being reported.
    """

    n: int = Field(ge=1, le=1_000_000)
    retrain: bool
    weights_released: bool
    finetuning: FinetuningPolicy
    inversion: InversionPolicy
    relearning: RelearningPolicy
    partial: PartialPolicy
    reach: ReachPolicy
    membership: MembershipPolicy
    quantised: QuantisedPolicy


class Compared(Strict):
    """One attack's detections on the base, the erased model, and a model that was trained without the class."""

    base: Detections
    erased: Detections
    retrained: Detections | None


class Recovery(Strict):
    """The share of samples detected after some steps of relearning, and the step at which half of the base's share was reached."""

    curve: tuple[tuple[int, Probability], ...]
    steps_to_half: int | None


class Relearned(Strict):
    """F6: one recovery per repeat, of the erased model and of one without the class."""

    budget: int = Field(ge=1, description="the last step of relearning")
    erased: tuple[Recovery, ...]
    retrained: tuple[Recovery, ...]


class Membership(Strict):
    """F9: one attack's AUC on images of the forgotten class against held-out ones, and DeLong's standard error."""

    attack: str
    members: int = Field(ge=0)
    controls: int = Field(ge=0)
    auc_base: float
    auc: float
    standard_error: float = Field(ge=0)


class AttackMeasurements(Strict):
    """The measurements of tier 2."""

    finetuned: Compared
    inverted: Compared
    partial: Compared
    reached: Detections
    relearned: Relearned
    membership: tuple[Membership, ...]
