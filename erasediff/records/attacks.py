"""Tier 2 of a gate's policy, and what it measures: attacks that train, that start from pictures, or that ask who was a member."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from erasediff.records.base import Probability, Strict


class Detections(Strict):
    """How often a detector called ``n`` samples of the forgotten condition the forgotten class.

    The reference says how often it calls real images of the other classes so: what a model without the class is called too.
    """

    n: int = Field(ge=0)
    detections: int = Field(ge=0)
    reference_n: int = Field(default=0, ge=0)
    reference_detections: int = Field(default=0, ge=0)


class FinetuningPolicy(Strict):
    """F4: how long the model is trained on retained images alone, and what may then be seen of the forgotten class."""

    steps: int = Field(ge=1, le=1_000_000)
    learning_rate: float = Field(gt=0)
    max_upper: float = Field(gt=0, lt=1)


class InversionPolicy(Strict):
    """F5: how many images an embedding is inverted from, how long, and what it may bring."""

    images: int = Field(ge=1, le=10_000)
    steps: int = Field(ge=1, le=1_000_000)
    learning_rate: float = Field(gt=0)
    max_upper: float = Field(gt=0, lt=1)


class RelearningPolicy(Strict):
    """F6: how many forgotten images the model is trained on, at which steps it is looked at, and how often all of it is done.

    The steps until half of the class is back may not fall below ``min_ratio`` of those of a model that never had it.
    """

    images: int = Field(ge=1, le=10_000)
    learning_rate: float = Field(gt=0)
    looks: tuple[int, ...] = Field(min_length=1, max_length=256)
    samples: int = Field(ge=1, le=1_000_000, description="samples a look")
    repeats: int = Field(ge=1, le=100)
    min_ratio: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.looks[0] < 1 or list(self.looks) != sorted(set(self.looks)):
            raise ValueError("looks are steps from 1, each later than the one before")
        return self


class PartialPolicy(Strict):
    """F3.partial: how much noise real images of the class get before they are denoised (SDEdit, Meng et al. 2108.01073)."""

    strength: float = Field(gt=0, le=1, description="share of the timesteps that is added and taken away again")
    max_upper: float = Field(gt=0, lt=1, description="of the excess over a model without the class")


class ReachPolicy(Strict):
    """F7: how many real images of the forgotten class have a sample nearer than their k-th neighbour."""

    neighbours: int = Field(ge=1, le=100)
    images: int = Field(ge=1, le=1_000_000, description="fewest real images of the class that this is counted on")
    max_upper: float = Field(gt=0, lt=1)


class MembershipPolicy(Strict):
    """F9: how far from chance a membership attack's AUC may be, with the power that the test has to have."""

    margin: float = Field(gt=0, lt=0.5)
    power: float = Field(gt=0, lt=1)
    images: int = Field(ge=2, le=1_000_000, description="at most so many members, and as many controls")


class QuantisedPolicy(Strict):
    """F8.int8: F1 again on the graph with weights of 8 bits."""

    max_upper: float = Field(gt=0, lt=1)


class AttackPolicy(Strict):
    """What tier 2 asks; each attack is shown to the base too, which it has to succeed on.

    ``retrain`` trains a model without the class to compare with, at the cost of the base's training. ``weights_released``
    says that users get the weights: what only they can do then decides and is not only reported.
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
    """What one attack brought, of the base, of the erased model, and of a model that was trained without the class."""

    base: Detections
    erased: Detections
    retrained: Detections | None


class Recovery(Strict):
    """The share of samples that was detected after so many steps of relearning, and when half of the base's was reached."""

    curve: tuple[tuple[int, Probability], ...]
    steps_to_half: int | None


class Relearned(Strict):
    """F6: one recovery a repeat, of the erased model and of one without the class."""

    budget: int = Field(ge=1, description="the last step that was looked at")
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
    """What tier 2 measured."""

    finetuned: Compared
    inverted: Compared
    partial: Compared
    reached: Detections
    relearned: Relearned
    membership: tuple[Membership, ...]
