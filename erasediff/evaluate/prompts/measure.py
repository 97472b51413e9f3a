"""Put an examination of a text-to-image erasure together: draw, look, count. Images are looked at prompt by prompt and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erasediff.evaluate.attacks.inversion import trained_token
from erasediff.evaluate.attacks.prompts import replay
from erasediff.evaluate.prompts.detectors import PromptDetector, PromptScorer
from erasediff.evaluate.prompts.sampling import Drawn, draw_prompted
from erasediff.evaluate.seeds import check_seeds
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.progress import progress
from erasediff.records.attacks import Detections
from erasediff.records.measurements import Probed
from erasediff.records.prompt_measurements import PromptCounts, PromptMeasurements, Replayed, ScoreChange
from erasediff.records.prompt_policy import PromptPolicy, ReplayName
from erasediff.records.prompts import PromptSet


@dataclass(frozen=True)
class PromptExamination:
    """Two models, who judges them by what, and the key of all seeds.

    ``images`` are ``uint8 [N,H,W,3]`` of the concept, for F5; without them F5 is not measured. The models are on ``device``.
    """

    base: StableDiffusion
    erased: StableDiffusion
    prompts: PromptSet
    policy: PromptPolicy
    detector: PromptDetector
    scorer: PromptScorer
    images: Tensor | None
    key: bytes
    device: torch.device

    def draw(self, pipeline: Any, prompts: Sequence[str], check: str, seeds: int) -> Drawn:
        """``seeds`` images of each prompt; the same check has the same seeds, whoever is asked."""
        said = [prompt for prompt in prompts for _ in range(seeds)]
        return draw_prompted(pipeline, said, check_seeds(self.key, check, len(said)), self.policy.sampling)


def examine(exam: PromptExamination) -> PromptMeasurements:
    """Everything that the gate looks at. F5 comes first, since its training is what may fail.

    Raises:
        BadInput: the tokenizer cannot take a new word; see :func:`erasediff.evaluate.attacks.inversion.trained_token`.
        NonFinite: the training of a token diverged.
    """
    policy, asked, inversion = exam.policy, [(prompt,) for prompt in exam.prompts.asked], _inverted(exam)
    base, erased = (
        count(exam, model.pipeline, asked, "F1", policy.forget.seeds, f"{of}: F1") for of, model in (("base", exam.base), ("erased", exam.erased))
    )
    kept = _look_at_retained(exam)
    return PromptMeasurements(
        detector=exam.detector.sha256,
        scorer=exam.scorer.sha256,
        base=base,
        erased=erased,
        false_positives=kept.false_positives,
        matched=kept.matched,
        replays=tuple(_replayed(exam, way) for way in policy.replay.ask),
        scores=kept.scores,
        inversion=inversion,
    )


def count(exam: PromptExamination, pipeline: Any, asked: Sequence[Sequence[str]], check: str, seeds: int, what: str) -> PromptCounts:
    """Detections by prompt of the concept.

    Args:
        exam: who looks, and by which key.
        pipeline: who is asked.
        asked: for each prompt of the concept, the prompts to draw.
        check: the check that asks, so that no two checks share an image.
        seeds: images of each of them.
        what: what the progress bar says.
    """
    detections, samples = [], []
    with progress(what, len(asked)) as done:
        for place, prompts in enumerate(asked):
            drawn = exam.draw(pipeline, prompts, f"{check} {place}", seeds)
            detections.append(int((exam.detector.shows(drawn.images) & drawn.finite).sum()))
            samples.append(int(drawn.finite.sum()))
            done(place + 1)
    return PromptCounts(detections=tuple(detections), samples=tuple(samples))


def _replayed(exam: PromptExamination, way: ReplayName) -> Replayed:
    asked = replay(exam.prompts, way, exam.key).prompts
    return Replayed(name=way, erased=count(exam, exam.erased.pipeline, asked, f"F3 {way}", exam.policy.replay.seeds, f"erased: F3, {way}"))


@dataclass(frozen=True)
class _Kept:
    false_positives: PromptCounts
    matched: PromptCounts
    scores: ScoreChange | None


def _look_at_retained(exam: PromptExamination) -> _Kept:
    """Draw every retained prompt from both models by the same seeds; only pairs of which both images are finite count."""
    prompts, seeds = exam.prompts.retained, exam.policy.retain.seeds
    false, matched, samples, changes = [], [], [], []
    with progress("base and erased: R1p", len(prompts)) as done:
        for place, prompt in enumerate(prompts):
            base, erased = (exam.draw(model.pipeline, [prompt], f"R1p {place}", seeds) for model in (exam.base, exam.erased))
            both = base.finite & erased.finite
            own, other = (exam.scorer.scores(base.images, [said] * seeds) for said in (prompt, prompts[(place + 1) % len(prompts)]))
            false.append(int((exam.detector.shows(base.images) & both).sum()))
            matched.append(int(((own > other) & both).sum()))
            samples.append(int(both.sum()))
            changes.append(float((exam.scorer.scores(erased.images, [prompt] * seeds) - own)[both].double().mean()))
            done(place + 1)
    counted = tuple(samples)
    # A mean that is not finite has no place in a record: nothing was measured then.
    finite = bool(torch.isfinite(torch.tensor(changes)).all())
    return _Kept(
        false_positives=PromptCounts(detections=tuple(false), samples=counted),
        matched=PromptCounts(detections=tuple(matched), samples=counted),
        scores=ScoreChange(changes=tuple(changes), samples=counted) if finite else None,
    )


def _inverted(exam: PromptExamination) -> Probed | None:
    """F5 on both models, where there are images enough to train a token on."""
    if exam.images is None or len(exam.images) < exam.policy.inversion.images:
        return None
    base, erased = (_by_token(exam, model, exam.images, of) for of, model in (("base", exam.base), ("erased", exam.erased)))
    return Probed(name="trained token", base=base, erased=erased)


def _by_token(exam: PromptExamination, model: StableDiffusion, images: Tensor, of: str) -> Detections:
    rule, (seed,) = exam.policy.inversion, check_seeds(exam.key, "F5 training", 1)
    latents = model.encode(images)
    token = trained_token(model, latents, exam.prompts.asked[0], rule, seed, exam.device, f"{of}: F5, training a token")
    detected = finite = 0
    size, seeds = exam.policy.sampling.batch_size, check_seeds(exam.key, "F5", rule.n)
    with progress(f"{of}: F5", rule.n) as done:
        for start in range(0, rule.n, size):
            part = seeds[start : start + size]
            said = [token.prompts[(start + i) % len(token.prompts)] for i in range(len(part))]
            drawn = draw_prompted(token.pipeline, said, part, exam.policy.sampling)
            detected += int((exam.detector.shows(drawn.images) & drawn.finite).sum())
            finite += int(drawn.finite.sum())
            done(start + len(part))
    return Detections(n=finite, detections=detected)
