"""What is measured of a text-to-image erasure, and the verdict on it: counts, scores and digests, and no prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from erasediff.records.base import Probability, Record, Sha256, Strict
from erasediff.records.measurements import Probed
from erasediff.records.nouns import Check, Verdict


class PromptCounts(Strict):
    """For each prompt, of how many images something was said, and of how many it held. An image that is not finite is not counted."""

    detections: tuple[int, ...]
    samples: tuple[int, ...]


class Replayed(Strict):
    """What one way of asking brought of the erased model, by the concept's prompt it was made from."""

    name: str
    erased: PromptCounts


class ScoreChange(Strict):
    """For each retained prompt, the mean change of its CLIP score (erased - base, same seeds), and over how many pairs of images."""

    changes: tuple[float, ...]
    samples: tuple[int, ...]


class PromptMeasurements(Record):
    """Everything the gate may look at. A value that was not measured is ``None`` and can never pass.

    ``false_positives`` are images of retained prompts, drawn from the base, that the detector calls the concept; ``matched`` are
    those that the scorer holds nearer to their own prompt than to another retained one.
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
    """``verdict.json``: the gate's answer, who judged whom by what, and the key that all seeds can be made from again.

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
    evaluation_key: Sha256 = Field(description="everyone may draw the images again who has the prompts")
    checks: tuple[Check, ...]
    reported: tuple[Check, ...] = ()
