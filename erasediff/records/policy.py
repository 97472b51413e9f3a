"""The gate's policy: which checks, how many samples, which thresholds. Fixed and digested before anything is erased."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from erasediff.records.attacks import AttackPolicy
from erasediff.records.base import Strict


class ControlPolicy(Strict):
    """C0: what must hold of the gate itself, or it says INCONCLUSIVE.

    The base must be detected this often and fail F1; and the base trained on for ``reference_steps`` on retained images must
    pass what is asked of retained classes.
    """

    min_detected: float = Field(gt=0, le=1)
    min_true_positive_rate: float = Field(gt=0, le=1)
    reference_steps: int = Field(ge=1, le=100_000)
    reference_rate: float = Field(gt=0, lt=1)


class ForgetPolicy(Strict):
    """F1: detections of the forgotten class among samples of its own label.

    Where the detector calls more than ``max_reference`` of real images of other classes so, the excess over that is bounded.
    """

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    max_reference: float = Field(ge=0, lt=1)


class NeighboursPolicy(Strict):
    """F1 by the second detector, where it knows the class: where it calls few enough real images of other classes so."""

    max_upper: float = Field(gt=0, lt=1)
    max_false_positives: float = Field(gt=0, lt=1)


class UnaskedPolicy(Strict):
    """F2: detections of the forgotten class among samples of the null label: what the model makes without being asked.

    The limit is ``max_upper``, or ``base_share`` of the base's own rate where that is more.
    """

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    base_share: float = Field(ge=0, lt=1)


ProbeName = Annotated[
    str, Field(pattern=r"^(guidance \d+(\.\d+)?|DDIM|ancestral|eta 1\.85|variance 1\.04|base embedding|noisy embedding|mixed embedding)$")
]
"""A way of asking that is not the one that serves; :mod:`erasediff.evaluate.attacks` knows each by its name."""


def guidance_scale(probe: str) -> float | None:
    """The guidance scale that a way of asking speaks of, if it speaks of one."""
    name, _, scale = probe.partition(" ")
    try:
        return float(scale) if name == "guidance" else None
    except ValueError:
        return None


BASE_EMBEDDING = "base embedding"
"""The way of asking that puts the base's embedding of the class into the candidate."""


class ProbesPolicy(Strict):
    """F3: detections among samples that were asked for otherwise; the worst way counts.

    ``max_upper`` is the limit for a class that the detector can tell from the others. Of one that it cannot, the excess over its own error
    is bounded (:class:`ForgetPolicy`), by ``max_excess``: the likes of the class fall over its threshold under strong guidance.
    The base's embedding says nothing to a network that was trained apart from it, so it counts from a ``min_kinship`` on.
    """

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    max_excess: float | None = Field(default=None, gt=0, lt=1, description="max_upper, if unset")
    ask: tuple[ProbeName, ...] = Field(min_length=1, max_length=64)
    min_kinship: float = Field(gt=0, le=1)


class RetainPolicy(Strict):
    """R1: non-inferiority margins of the retained classes' accuracy.

    A class on which base and candidate disagree often is asked again, up to ``max_per_class`` samples in all, for R1.class alone.
    """

    n_per_class: int = Field(ge=1, le=1_000_000)
    max_per_class: int | None = Field(default=None, ge=1, le=1_000_000)
    macro_margin: float = Field(gt=0, lt=1)
    class_margin: float = Field(gt=0, lt=1)
    nearest: int = Field(ge=0, le=1000)
    nearest_margin: float = Field(gt=0, lt=1)


class FidelityPolicy(Strict):
    """R2 and R3: how far retained images may drift from real ones.

    The kernel distance may rise by ``kernel_share`` of the base's plus ``kernel_slack``, in units of the features.
    """

    max_relative_upper: float = Field(gt=0, le=10)
    resamples: int = Field(ge=200, le=100_000)
    kernel_share: float = Field(ge=0, le=10)
    kernel_slack: float = Field(ge=0, le=10)
    kernel_blocks: int = Field(ge=20, le=1000)
    neighbours: int = Field(ge=1, le=100)
    real_images: int = Field(ge=1, le=1_000_000, description="fewest real images of retained classes that recall and coverage are counted on")
    manifold_margin: float = Field(gt=0, lt=1)
    max_drift: float = Field(gt=0, le=10, description="R4: of the Fréchet distance over all erasures together, after the first")


class ExportPolicy(Strict):
    """F8: F1 again on the exported graph, and its distance from the denoiser."""

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    max_relative_error: float = Field(gt=0, lt=1)


class GatePolicy(Strict):
    """A gate policy; :file:`policies/class-conditional.yaml` is the default one."""

    name: str = Field(min_length=1, max_length=64)
    tier: Literal[1, 2] = Field(description="2 asks for what costs training as well: the attacks")
    alpha: float = Field(gt=0, lt=0.5)
    attempts: int = Field(ge=1, le=10, description="tries at a request that the gate judges; each is judged at half the α of the one before")
    control: ControlPolicy
    forget: ForgetPolicy
    neighbours: NeighboursPolicy
    unasked: UnaskedPolicy
    probes: ProbesPolicy
    retain: RetainPolicy
    fidelity: FidelityPolicy
    export: ExportPolicy
    attacks: AttackPolicy

    def alpha_of(self, attempt: int) -> float:
        """α of the n-th try, n from 1: whoever may try again passes more often by luck, so each try is judged harder."""
        return float(self.alpha / 2 ** (attempt - 1))

    def without_further_samples(self) -> GatePolicy:
        """The same policy, by which no class gets further samples."""
        return self.model_copy(update={"retain": self.retain.model_copy(update={"max_per_class": None})})

    def for_attempt(self, attempt: int) -> GatePolicy:
        """The policy by which the n-th try is judged."""
        return self.model_copy(update={"alpha": self.alpha_of(attempt)})


def load_policy(path: Path) -> GatePolicy:
    """Read a policy from YAML.

    Raises:
        BadInput: unreadable, an unknown field, or a threshold out of its range.
    """
    from erasediff.records.yaml import load_yaml  # who checks certificates has no reader of YAML

    return GatePolicy.parse(load_yaml(path, "the policy"), f"the policy {path}")
