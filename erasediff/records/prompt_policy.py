"""The gate's policy for text-to-image models: checks, numbers of prompts and seeds, thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from erasediff.records.base import Strict
from erasediff.records.yaml import load_yaml

ReplayName = Literal["otherwise", "neighbouring key", "dropped letter", "doubled letter", "homoglyph"]
"""``otherwise``: paraphrases from the file of prompts; the rest are misspellings, made by :mod:`erasediff.evaluate.attacks.prompts`."""


class PromptSampling(Strict):
    """How images are sampled from both models."""

    steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=100)
    batch_size: int = Field(ge=1, le=1024)


class PromptDetectorPolicy(Strict):
    """The detector of the concept, and its threshold."""

    kind: Literal["clip", "nudenet"]
    threshold: float = Field(gt=0, lt=1)


class PromptControlPolicy(Strict):
    """C0: controls of the base and the judges; if one fails, the verdict is INCONCLUSIVE."""

    min_detected: float = Field(gt=0, le=1)
    max_false_positives: float = Field(gt=0, lt=1)
    min_matched: float = Field(gt=0.5, le=1)


class AskedPolicy(Strict):
    """F1: the number of prompts, of seeds per prompt, and the limit of detections."""

    prompts: int = Field(ge=2, le=2000)
    seeds: int = Field(ge=1, le=10_000)
    max_upper: float = Field(gt=0, lt=1)


class ReplayPolicy(AskedPolicy):
    """F3: the same for prompts that were not used in the erasure; ``seeds`` are per prompt."""

    ask: tuple[ReplayName, ...] = Field(min_length=1, max_length=16)


class KeptPolicy(Strict):
    """R1p: how much the CLIP score (a cosine) of retained prompts may fall."""

    prompts: int = Field(ge=2, le=2000)
    seeds: int = Field(ge=1, le=10_000)
    score_margin: float = Field(gt=0, lt=1)


class PromptInversionPolicy(Strict):
    """F5: train a token on a few images of the concept, and sample ``n`` images with it."""

    images: int = Field(ge=1, le=1000)
    steps: int = Field(ge=1, le=100_000)
    learning_rate: float = Field(gt=0, lt=10)
    batch_size: int = Field(ge=1, le=1024)
    n: int = Field(ge=1, le=1_000_000)
    max_upper: float = Field(gt=0, lt=1)


class PromptPolicy(Strict):
    """A gate policy for prompts; :file:`policies/text-to-image.yaml` is the default one."""

    name: str = Field(min_length=1, max_length=64)
    alpha: float = Field(gt=0, lt=0.5)
    resamples: int = Field(ge=200, le=100_000)
    weights_released: bool
    sampling: PromptSampling
    detector: PromptDetectorPolicy
    control: PromptControlPolicy
    forget: AskedPolicy
    replay: ReplayPolicy
    retain: KeptPolicy
    inversion: PromptInversionPolicy

    @model_validator(mode="after")
    def _can_be_passed(self) -> Self:
        """Without detections each prompt counts as one sample, so the best bound for c prompts is 1 - α^(1/c)."""
        for name, asked in (("forget", self.forget), ("replay", self.replay)):
            if (best := 1 - self.alpha ** (1 / asked.prompts)) > asked.max_upper:
                raise ValueError(f"{name}.prompts are too few: even without detections the bound would be {best:.3f}")
        for name, best, wanted in (
            ("control.min_detected", self.alpha ** (1 / self.forget.prompts), self.control.min_detected),
            ("control.min_matched", self.alpha ** (1 / self.retain.prompts), self.control.min_matched),
            ("control.max_false_positives", self.control.max_false_positives, 1 - self.alpha ** (1 / self.retain.prompts)),
        ):
            if best < wanted:
                raise ValueError(f"{name} cannot be met with so few prompts")
        if self.forget.max_upper >= self.control.min_detected:
            raise ValueError("forget.max_upper must lie below control.min_detected, or the base could pass")
        return self


def load_prompt_policy(path: Path) -> PromptPolicy:
    """Read a policy from YAML.

    Raises:
        BadInput: unreadable, an unknown field, a threshold out of its range, or a policy that no model could pass.
    """
    return PromptPolicy.parse(load_yaml(path, "the policy"), f"the policy {path}")
