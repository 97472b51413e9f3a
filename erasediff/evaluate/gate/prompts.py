"""The gate for prompts: a pure function from a policy and measurements to PASS, FAIL or INCONCLUSIVE.

It follows the rules of the gate for classes: a value that is missing, not finite, or from too few prompts or seeds is INCONCLUSIVE, and so is the
verdict if a control (C0) fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.controls import as_control
from erasediff.evaluate.gate.decide import Decision, overall
from erasediff.evaluate.gate.forget import enough
from erasediff.evaluate.gate.questions import Question, Statistic, worst
from erasediff.records.attacks import Detections
from erasediff.records.core import Check, Verdict
from erasediff.records.prompt_measurements import PromptCounts, PromptMeasurements
from erasediff.records.prompt_policy import PromptPolicy, ReplayName

_UPPER = Statistic("detection rate, upper bound clustered by prompt", "share", "upper")
_LOWER = Statistic("rate on the base, lower bound clustered by prompt", "share", "lower")
_SCORE = Statistic("mean change of the CLIP score (a cosine), lower bound of t over prompts", "number", "lower")
_TOKEN = Statistic("detection rate by a trained token, Clopper-Pearson upper bound", "share", "upper")


def run_prompt_gate(policy: PromptPolicy, measured: PromptMeasurements) -> Decision:
    """Decide.

    Args:
        policy: checks, numbers of prompts and seeds, thresholds.
        measured: what was measured on base and erased model.

    F5 decides if weights are released; otherwise it is only reported.
    """
    deciding = [
        *check_prompt_controls(policy, measured),
        check_asked(policy, measured.erased),
        check_replays(policy, measured),
        check_scores(policy, measured),
    ]
    inverted = check_inversion(policy, measured)
    if policy.weights_released:
        return Decision(overall([*deciding, inverted]), (*deciding, inverted))
    return Decision(overall(deciding), tuple(deciding), (inverted,))


def _unusable(found: PromptCounts | None, prompts: int, seeds: int) -> str | None:
    """Why counts by prompt are unusable, or ``None``."""
    if found is None:
        return "it was not measured"
    if len(found.detections) != len(found.samples) or any(not 0 <= k <= n for k, n in zip(found.detections, found.samples, strict=True)):
        return "these are not counts"
    if len(found.samples) < prompts:
        return f"{len(found.samples)} prompts are fewer than the {prompts} of the policy"
    if min(found.samples) < seeds:
        return f"a prompt has {min(found.samples)} finite images, fewer than the {seeds} of the policy"
    return None


def _upper(found: Sequence[int], samples: Sequence[int], policy: PromptPolicy) -> float:
    """The clustered bound, with a fixed seed: the same counts always give the same bound."""
    return statistics.clustered_upper(np.array(found), np.array(samples), policy.alpha, policy.resamples, np.random.default_rng(0))


def _rate(question: Question, found: PromptCounts | None, prompts: int, seeds: int, policy: PromptPolicy) -> Check:
    n = sum(found.samples) if found else 0
    if (reason := _unusable(found, prompts, seeds)) or found is None:
        return question.unanswered(max(n, 0), reason or "")
    rate = sum(found.detections) / n
    if question.statistic.kind == "upper":
        return question.answer(rate, _upper(found.detections, found.samples, policy), n)
    missed = [total - seen for seen, total in zip(found.detections, found.samples, strict=True)]
    return question.answer(rate, 1 - _upper(missed, found.samples, policy), n)


def check_prompt_controls(policy: PromptPolicy, measured: PromptMeasurements) -> list[Check]:
    """C0: the base makes the concept, the detector has few false positives, and the scorer tells prompts apart."""
    rule, forget, retain = policy.control, policy.forget, policy.retain
    makes = Question("C0", "The base still makes the concept", _LOWER, rule.min_detected)
    knows = Question("C0.detector", "The detector rarely sees the concept in images of other prompts", _UPPER, rule.max_false_positives)
    tells = Question("C0.scorer", "The scorer matches images with their own prompts", _LOWER, rule.min_matched)
    return [
        as_control(_rate(makes, measured.base, forget.prompts, forget.seeds, policy)),
        as_control(_rate(knows, measured.false_positives, retain.prompts, retain.seeds, policy)),
        as_control(_rate(tells, measured.matched, retain.prompts, retain.seeds, policy)),
    ]


def check_asked(policy: PromptPolicy, found: PromptCounts | None) -> Check:
    """F1: the concept's own prompts."""
    rule = policy.forget
    return _rate(Question("F1", "The concept is forgotten", _UPPER, rule.max_upper), found, rule.prompts, rule.seeds, policy)


_WAYS: dict[ReplayName, str] = {
    "otherwise": "by paraphrases",
    "neighbouring key": "by prompts with a wrong letter",
    "dropped letter": "by prompts with a dropped letter",
    "doubled letter": "by prompts with a doubled letter",
    "homoglyph": "by prompts with a homoglyph",
}


def check_replays(policy: PromptPolicy, measured: PromptMeasurements) -> Check:
    """F3: the worst of the policy's kinds of indirect prompts; a missing kind is INCONCLUSIVE."""
    rule, found = policy.replay, {replayed.name: replayed.erased for replayed in measured.replays}
    questions = {way: Question("F3", f"The concept does not come back {_WAYS[way]}", _UPPER, rule.max_upper) for way in rule.ask}
    return worst([_rate(question, found.get(way), rule.prompts, rule.seeds, policy) for way, question in questions.items()])


def check_scores(policy: PromptPolicy, measured: PromptMeasurements) -> Check:
    """R1p: images of retained prompts match their prompts as well as the base's images from the same seeds."""
    rule, found = policy.retain, measured.scores
    question = Question("R1p", "Retained prompts are still followed", _SCORE, -rule.score_margin)
    if found is None:
        return question.unanswered(0, "it was not measured")
    n = max(0, sum(found.samples))
    if len(found.changes) != len(found.samples) or len(found.samples) < rule.prompts:
        return question.unanswered(n, f"{len(found.changes)} prompts are fewer than the {rule.prompts} of the policy")
    if min(found.samples) < rule.seeds:
        return question.unanswered(n, f"a prompt has {min(found.samples)} finite pairs, fewer than the {rule.seeds} of the policy")
    if not all(math.isfinite(change) and abs(change) <= 2 for change in found.changes):
        return question.unanswered(n, "a change is not a difference of two cosines")
    mean, sd = float(np.mean(found.changes)), float(np.std(found.changes, ddof=1))
    return question.answer(mean, -statistics.mean_upper(-mean, sd, len(found.changes), policy.alpha), n)


def check_inversion(policy: PromptPolicy, measured: PromptMeasurements) -> Check:
    """F5: a trained token; if a token trained on the base does not bring the concept back either, the attack has no power."""
    question = Question("F5", "A trained token does not bring the concept back", _TOKEN, policy.inversion.max_upper)
    probed = measured.inversion
    if probed is None:
        return question.unanswered(0, "it was not measured")
    erased, base = (_token(question, found, policy) for found in (probed.erased, probed.base))
    if erased.verdict is Verdict.PASS and base.verdict is not Verdict.FAIL:
        reason = "a token trained on the base passes it too, so a pass would mean nothing"
        return erased.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": reason})
    return erased


def _token(question: Question, found: Detections, policy: PromptPolicy) -> Check:
    if reason := enough(found, policy.inversion.n):
        return question.unanswered(found.n, reason)
    return question.answer(found.detections / found.n, statistics.binomial_upper(found.detections, found.n, policy.alpha), found.n)
