"""The measurements of a text-to-image erasure and the verdict: counts, scores and digests, no prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from erasediff.records.base import Probability, Record, Sha256, Strict
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import Probed


class PromptCounts(Strict):
    """For each prompt, the number of detections and of samples. Images with non-finite values are not counted."""

    detections: tuple[int, ...]
    samples: tuple[int, ...]


class Replayed(Strict):
    """The detections of one kind of indirect prompt on the erased model, by the concept's prompt it was made from."""

    name: str
    erased: PromptCounts


class ScoreChange(Strict):
    """For each retained prompt, the mean change of its CLIP score (erased - base, same seeds), and the number of image pairs."""

    changes: tuple[float, ...]
    samples: tuple[int, ...]


class PromptMeasurements(Record):
    """Everything that the gate decides on. A value that was not measured is ``None`` and cannot pass.

    Both count the base's images of retained prompts: ``false_positives`` those in which the detector sees the concept, ``matched`` those that the
    scorer matches better with their own prompt than with another retained one.
    """

    detector: Sha256
    scorer: Sha256
    base: PromptCounts | None
    erased: PromptCounts | None
    false_positives: PromptCounts | None
    matched: PromptCounts | None
    replays: tuple[Replayed, ...]
    scores: ScoreChange | None
    inversion: Probed | None


class PromptVerdict(Record):
    """``verdict.json``: the verdict, digests of models and judges, and the key of all seeds.

    ``checks`` decided, ``reported`` did not.
    """

    format: Literal["erasediff-prompt-verdict/1"] = "erasediff-prompt-verdict/1"
    verdict: Verdict
    policy: str
    policy_digest: Sha256
    alpha: Probability
    base_sha256: Sha256
    erased_sha256: Sha256
    detector_sha256: Sha256
    scorer_sha256: Sha256
    evaluation_key: Sha256 = Field(description="anyone who has the prompts can draw the images again")
    checks: tuple[Check, ...]
    reported: tuple[Check, ...] = ()
