"""The gate's policy: checks, sample sizes and thresholds, fixed before the erasure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from erasediff.files import shipped
from erasediff.records.attacks import AttackPolicy
from erasediff.records.base import Strict

SHIPPED_POLICIES = ("class-conditional", "class-conditional-strict")
"""The first is the default one."""


class ControlPolicy(Strict):
    """C0: controls of the gate itself; if one fails, the verdict is INCONCLUSIVE.

    The base must be detected this often and fail F1. The base after ``reference_steps`` more steps on retained images must pass R1 to R3.
    """

    min_detected: float = Field(gt=0, le=1)
    min_true_positive_rate: float = Field(gt=0, le=1)
    reference_steps: int = Field(ge=1, le=100_000)
    reference_rate: float = Field(gt=0, lt=1)


class ForgetPolicy(Strict):
    """F1: detections of the forgotten class among samples of its own label.

    If the detector's false positive rate exceeds ``max_reference``, the excess over that rate is bounded instead.
    """

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    max_reference: float = Field(ge=0, lt=1)


class NeighboursPolicy(Strict):
    """F1 by the second detector, if its false positive rate is low enough."""

    max_upper: float = Field(gt=0, lt=1)
    max_false_positives: float = Field(gt=0, lt=1)


class UnaskedPolicy(Strict):
    """F2: detections of the forgotten class among samples of the null label.

    The limit is ``max_upper``, or ``base_share`` of the base's own rate if that is higher.
    """

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    base_share: float = Field(ge=0, lt=1)


ProbeName = Annotated[
    str, Field(pattern=r"^(guidance \d+(\.\d+)?|DDIM|ancestral|eta 1\.85|variance 1\.04|base embedding|noisy embedding|mixed embedding)$")
]
"""A probe: a way of sampling other than the server's; see :mod:`erasediff.evaluate.attacks`."""


def guidance_scale(probe: str) -> float | None:
    """The guidance scale in a probe's name, if it has one."""
    name, _, scale = probe.partition(" ")
    try:
        return float(scale) if name == "guidance" else None
    except ValueError:
        return None


BASE_EMBEDDING = "base embedding"
"""The probe that puts the base's embedding of the class into the candidate."""


class ProbesPolicy(Strict):
    """F3: detections by indirect probes; the worst probe counts.

    ``max_upper`` is the limit for a class that the detector tells apart from the others. For another class, the excess over the detector's false
    positive rate is bounded by ``max_excess``: strong guidance pushes similar classes over the detector's threshold. The base's embedding means
    nothing to a network that was trained independently, so that probe counts only from ``min_kinship`` on.
    """

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    max_excess: float | None = Field(default=None, gt=0, lt=1, description="max_upper, if unset")
    ask: tuple[ProbeName, ...] = Field(min_length=1, max_length=64)
    min_kinship: float = Field(gt=0, le=1)

    def asked_of(self, null_row: bool) -> tuple[ProbeName, ...]:
        """The probes that a model can be asked by: guidance takes a null row."""
        return tuple(name for name in self.ask if null_row or guidance_scale(name) in (None, 1.0))


class RetainPolicy(Strict):
    """R1: non-inferiority margins of the retained classes' accuracy.

    A class on which base and candidate often disagree gets further samples for R1.class, up to ``max_per_class`` in all.
    """

    n_per_class: int = Field(ge=1, le=1_000_000)
    max_per_class: int | None = Field(default=None, ge=1, le=1_000_000)
    macro_margin: float = Field(gt=0, lt=1)
    class_margin: float = Field(gt=0, lt=1)
    nearest: int = Field(ge=0, le=1000)
    nearest_margin: float = Field(gt=0, lt=1)


class FidelityPolicy(Strict):
    """R2 to R4: how far retained images may move away from real ones.

    The kernel distance may rise by ``kernel_share`` of the base's distance plus ``kernel_slack``.
    """

    max_relative_upper: float = Field(gt=0, le=10)
    resamples: int = Field(ge=200, le=100_000)
    kernel_share: float = Field(ge=0, le=10)
    kernel_slack: float = Field(ge=0, le=10)
    kernel_blocks: int = Field(ge=20, le=1000)
    neighbours: int = Field(ge=1, le=100)
    real_images: int = Field(ge=1, le=1_000_000, description="minimum of real images for recall and coverage")
    manifold_margin: float = Field(gt=0, lt=1)
    max_drift: float = Field(gt=0, le=10, description="R4: of the Fréchet distance over all erasures together, from the second erasure on")


class ExportPolicy(Strict):
    """F8: F1 on the exported graph, and its difference from the denoiser."""

    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)
    max_relative_error: float = Field(gt=0, lt=1)


class GatePolicy(Strict):
    """A gate policy; :file:`policies/class-conditional.yaml` is the default one."""

    name: str = Field(min_length=1, max_length=64)
    tier: Literal[1, 2] = Field(description="2: also the attacks, which cost training")
    alpha: float = Field(gt=0, lt=0.5)
    attempts: int = Field(ge=1, le=10, description="allowed tries at a request; each try is judged at half the α of the one before")
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
        """α of the n-th try, n from 1. It falls with each try, since repeated tries pass more often by luck."""
        return float(self.alpha / 2 ** (attempt - 1))

    def without_further_samples(self) -> GatePolicy:
        """The same policy, by which no class gets further samples."""
        return self.model_copy(update={"retain": self.retain.model_copy(update={"max_per_class": None})})

    def for_attempt(self, attempt: int) -> GatePolicy:
        """The policy by which the n-th try is judged."""
        return self.model_copy(update={"alpha": self.alpha_of(attempt)})


def policy_named(name: str) -> GatePolicy:
    """A shipped policy by its name, or the policy of a file; see :func:`load_policy`."""
    return load_policy(shipped(f"policies/{name}.yaml") if name in SHIPPED_POLICIES else Path(name))


def load_policy(path: Path) -> GatePolicy:
    """Read a policy from YAML.

    Raises:
        BadInput: unreadable, an unknown field, or a threshold out of its range.
    """
    from erasediff.records.yaml import load_yaml  # the extra 'verify' has no YAML reader

    return GatePolicy.parse(load_yaml(path, "the policy"), f"the policy {path}")
