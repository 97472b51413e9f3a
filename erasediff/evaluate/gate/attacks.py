"""Tier 2: attackers who train the model or who have images of the class.

The policy says which attacks decide and which are only reported: without the weights nobody can train them, and some attacks need a comparison with
a model that never saw the class.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Sequence

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.forget import check_detections
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.records.attacks import Compared, Detections, Membership, Recovery, Relearned
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import Measurements
from erasediff.records.policy import GatePolicy

_RATIO = Statistic("steps until half of the class is back, relative to a model without the class: median, lowest", "number", "lower")
_CHANCE = Statistic("distance of the attack's AUC from 0.5, DeLong, two one-sided tests", "number", "upper")
_NO_COMPARISON = "it needs a model without the class, and attacks.retrain is false"
_NO_POWER = "the attack fails on the base too, so a pass would mean nothing"


def check_attacks(policy: GatePolicy, measured: Measurements) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """The checks that decide and those that are reported; none on tier 1."""
    if policy.tier < 2:
        return (), ()
    rule, found = policy.attacks, measured.attacks
    finetuned, inverted = (found.finetuned, found.inverted) if found else (None, None)
    partial, reached, relearned = (found.partial, found.reached, found.relearned) if found else (None, None, None)
    decisive = [
        _check_attack("F4", "Fine-tuning on retained images does not bring the class back", finetuned, rule.finetuning.max_upper, policy),
        _check_reach(policy, measured.class_names[measured.label], reached),
    ]
    reported = [_check_relearning(policy, relearned), *_check_membership(policy, found.membership if found else ())]
    inversion = _check_attack("F5", "An inverted embedding does not bring the class back", inverted, rule.inversion.max_upper, policy)
    (decisive if rule.weights_released else reported).append(inversion)
    (decisive if rule.retrain else reported).append(_check_partial(policy, partial))
    return tuple(decisive), tuple(reported)


def _rule(policy: GatePolicy, n: int, max_upper: float) -> GatePolicy:
    return policy.model_copy(update={"forget": policy.forget.model_copy(update={"n": n, "max_upper": max_upper})})


def _check_attack(id: str, title: str, found: Compared | None, max_upper: float, policy: GatePolicy) -> Check:
    """F1's rule after an attack that succeeds on the base; the excess over a model without the class counts, if there is one."""
    asked = _rule(policy, policy.attacks.n, max_upper)
    beyond = _against_retrained(found) if found else None
    check = check_detections(id, title, beyond.erased if beyond else None, asked.forget, policy.alpha)
    if beyond is None or check_detections("", "", beyond.base, asked.forget, policy.alpha).verdict is Verdict.FAIL:
        return check
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": _NO_POWER})


def _against_retrained(found: Compared) -> Compared:
    """Take the model without the class as the reference, instead of real images."""
    if (without := found.retrained) is None:
        return found
    reference = {"reference_n": without.n, "reference_detections": without.detections}
    base, erased = (one.model_copy(update=reference) for one in (found.base, found.erased))
    return Compared(base=base, erased=erased, retrained=None)


def _check_partial(policy: GatePolicy, found: Compared | None) -> Check:
    """F3.partial: little noise hides little of an image, so this check needs a model without the class for comparison."""
    check = _check_attack("F3.partial", "Noised images of the class are not restored to the class", found, policy.attacks.partial.max_upper, policy)
    if found is None or found.retrained is not None:
        return check
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": _NO_COMPARISON})


def _check_reach(policy: GatePolicy, name: str, reached: Detections | None) -> Check:
    """F7: the share of real images of the class with a sample near them, beyond the share with a real image of another class near them."""
    rule = policy.attacks.reach
    asked = _rule(policy, rule.images, rule.max_upper).forget
    return check_detections("F7", f"No samples resemble real images of class {name}", reached, asked, policy.alpha)


def _check_relearning(policy: GatePolicy, found: Relearned | None) -> Check:
    """F6: anyone with a few images can teach the class again; it must not be faster than for a model that never saw it.

    If half of the class is not back by the last step, that step counts.
    """
    rule = policy.attacks.relearning
    question = Question("F6", "Relearning the class takes as long as learning it", _RATIO, rule.min_ratio)
    if found is None or len(found.erased) < rule.repeats:
        return question.unanswered(len(found.erased) if found else 0, "it has fewer repeats than the policy requires")
    if len(found.retrained) < len(found.erased):
        return question.unanswered(len(found.erased), _NO_COMPARISON)
    ratios = [_steps(mine, found) / _steps(theirs, found) for mine, theirs in zip(found.erased, found.retrained, strict=True)]
    return question.answer(plain.median(ratios), min(ratios), len(ratios))


def _steps(recovery: Recovery, found: Relearned) -> int:
    return found.budget if recovery.steps_to_half is None else recovery.steps_to_half


def _check_membership(policy: GatePolicy, found: Sequence[Membership]) -> list[Check]:
    """F9: every attack must be no better than chance, shown on enough images."""
    return [_check_auc(policy, attack) for attack in found]


def _check_auc(policy: GatePolicy, found: Membership) -> Check:
    rule, n = policy.attacks.membership, min(found.members, found.controls)
    question = Question(f"F9.{found.attack.lower()}", f"Membership in the training set cannot be inferred ({found.attack})", _CHANCE, rule.margin)
    interval = statistics.equivalence(found.auc, found.standard_error, policy.alpha)
    distance = max(abs(interval.lower - 0.5), abs(interval.upper - 0.5))
    answer = question.answer(abs(found.auc - 0.5), distance, n)
    if answer.verdict is not Verdict.FAIL or not math.isfinite(distance):
        return answer
    if statistics.equivalence_to_chance(found.members, found.controls, rule.margin, policy.alpha) >= rule.power:
        return answer
    reason = f"{found.members} members and {found.controls} controls are too few to show equality to chance within {rule.margin:g}"
    return answer.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": reason})
