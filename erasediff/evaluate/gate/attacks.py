"""Tier 2: what an attacker who trains, or who brings pictures, gets out of the model.

What decides and what is only reported is a matter of the policy: who does not get the weights cannot train them, and without a
model that never had the class there is nothing to compare some attacks with.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Sequence

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.forget import check_detections
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.records.attacks import Compared, Detections, Membership, Recovery, Relearned
from erasediff.records.measurements import Measurements
from erasediff.records.nouns import Check, Verdict
from erasediff.records.policy import GatePolicy

_RATIO = Statistic("steps until half is back, over those of a model without the class: median, lowest", "number", "lower")
_CHANCE = Statistic("distance of the attack's AUC from 0.5, DeLong, two one-sided tests", "number", "upper")
_NO_COMPARISON = "there is no model without the class to compare with: attacks.retrain is false"
_NO_POWER = "the base withstands it too, so a pass would mean nothing"


def check_attacks(policy: GatePolicy, measured: Measurements) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """The checks that decide and those that are reported; none on tier 1."""
    if policy.tier < 2:
        return (), ()
    rule, found = policy.attacks, measured.attacks
    finetuned, inverted = (found.finetuned, found.inverted) if found else (None, None)
    partial, reached, relearned = (found.partial, found.reached, found.relearned) if found else (None, None, None)
    decisive = [
        _check_attack("F4", "Training on retained images brings nothing back", finetuned, rule.finetuning.max_upper, policy),
        _check_reach(policy, measured.label, reached),
    ]
    reported = [_check_relearning(policy, relearned), *_check_membership(policy, found.membership if found else ())]
    inversion = _check_attack("F5", "No embedding brings the class back", inverted, rule.inversion.max_upper, policy)
    (decisive if rule.weights_released else reported).append(inversion)
    (decisive if rule.retrain else reported).append(_check_partial(policy, partial))
    return tuple(decisive), tuple(reported)


def _rule(policy: GatePolicy, n: int, max_upper: float) -> GatePolicy:
    return policy.model_copy(update={"forget": policy.forget.model_copy(update={"n": n, "max_upper": max_upper})})


def _check_attack(id: str, title: str, found: Compared | None, max_upper: float, policy: GatePolicy) -> Check:
    """F1's rule after an attack that the base must not withstand; beyond what it brings of a model without the class, where there is one."""
    asked = _rule(policy, policy.attacks.n, max_upper)
    beyond = _against_retrained(found) if found else None
    check = check_detections(id, title, beyond.erased if beyond else None, asked.forget, policy.alpha)
    if beyond is None or check_detections("", "", beyond.base, asked.forget, policy.alpha).verdict is Verdict.FAIL:
        return check
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": _NO_POWER})


def _against_retrained(found: Compared) -> Compared:
    """With the model without the class for reference, in place of real images."""
    if (without := found.retrained) is None:
        return found
    reference = {"reference_n": without.n, "reference_detections": without.detections}
    base, erased = (one.model_copy(update=reference) for one in (found.base, found.erased))
    return Compared(base=base, erased=erased, retrained=None)


def _check_partial(policy: GatePolicy, found: Compared | None) -> Check:
    """F3.partial: little noise hides little of a picture, so there has to be a model without the class to compare with."""
    check = _check_attack("F3.partial", "Pictures of the class are not completed to the class", found, policy.attacks.partial.max_upper, policy)
    if found is None or found.retrained is not None:
        return check
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": _NO_COMPARISON})


def _check_reach(policy: GatePolicy, label: int, reached: Detections | None) -> Check:
    """F7: real images of the class with a sample near them, beyond those with a real image of another class near them."""
    rule = policy.attacks.reach
    asked = _rule(policy, rule.images, rule.max_upper).forget
    return check_detections("F7", f"Nothing like real images of class {label} is made", reached, asked, policy.alpha)


def _check_relearning(policy: GatePolicy, found: Relearned | None) -> Check:
    """F6: whoever has a few images can teach them again; that it goes no faster than for a model that never had the class is the most to ask.

    Half of the class that is not back at the last look is back no sooner than that.
    """
    rule = policy.attacks.relearning
    question = Question("F6", "Learning the class again is not a shortcut", _RATIO, rule.min_ratio)
    if found is None or len(found.erased) < rule.repeats:
        return question.unanswered(len(found.erased) if found else 0, "it was not measured as often as the policy asks")
    if len(found.retrained) < len(found.erased):
        return question.unanswered(len(found.erased), _NO_COMPARISON)
    ratios = [_steps(mine, found) / _steps(theirs, found) for mine, theirs in zip(found.erased, found.retrained, strict=True)]
    return question.answer(plain.median(ratios), min(ratios), len(ratios))


def _steps(recovery: Recovery, found: Relearned) -> int:
    return found.budget if recovery.steps_to_half is None else recovery.steps_to_half


def _check_membership(policy: GatePolicy, found: Sequence[Membership]) -> list[Check]:
    """F9: is each attack shown to know no more than chance, on enough images to have shown it?"""
    return [_check_auc(policy, attack) for attack in found]


def _check_auc(policy: GatePolicy, found: Membership) -> Check:
    rule, n = policy.attacks.membership, min(found.members, found.controls)
    question = Question(f"F9.{found.attack.lower()}", f"Whether an image was trained on is not seen ({found.attack})", _CHANCE, rule.margin)
    interval = statistics.equivalence(found.auc, found.standard_error, policy.alpha)
    distance = max(abs(interval.lower - 0.5), abs(interval.upper - 0.5))
    answer = question.answer(abs(found.auc - 0.5), distance, n)
    if answer.verdict is not Verdict.FAIL or not math.isfinite(distance):
        return answer
    if statistics.equivalence_to_chance(found.members, found.controls, rule.margin, policy.alpha) >= rule.power:
        return answer
    reason = f"{found.members} members and {found.controls} controls are too few to show equality to chance within {rule.margin:g}"
    return answer.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": reason})
