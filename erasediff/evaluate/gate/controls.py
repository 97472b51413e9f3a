"""C0: controls that test the gate itself."""

from __future__ import annotations

from collections.abc import Sequence

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.forget import check_detections, enough
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.evaluate.gate.retain import check_retain_side
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import DetectorQuality, Measurements
from erasediff.records.policy import GatePolicy

_RATE_LOWER = Statistic("detection rate on the base, Clopper-Pearson lower bound", "share", "lower")
_TRUE_POSITIVES = Statistic("true positive rate on real images the detector was not trained on", "share", "lower")
_ATTEMPTS = Statistic("judged tries at this request", "number", "upper")
_PASSED = Statistic("checks of retained classes that the base passes after a little more training", "number", "lower")


def as_control(check: Check) -> Check:
    """A failed control is INCONCLUSIVE: it shows that the gate has no power, not that the candidate is bad."""
    if check.verdict is not Verdict.FAIL:
        return check
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "the control failed, so a pass would mean nothing"})


def check_controls(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int]) -> list[Check]:
    """The base must be detected and fail F1, the detector must know the class on real images, and the reference must pass."""
    return [*check_power(policy, measured), check_reference(policy, measured, forgotten)]


def check_power(policy: GatePolicy, measured: Measurements) -> list[Check]:
    """C0 and C0.detector: whether F1 could have failed."""
    question = Question("C0", "The base still makes the class", _RATE_LOWER, policy.control.min_detected)
    base, reason = measured.forget_base, enough(measured.forget_base, policy.forget.n)
    if base is None or reason:
        power = question.unanswered(base.n if base else 0, reason or "")
    else:
        power = as_control(question.answer(base.detections / base.n, statistics.binomial_lower(base.detections, base.n, policy.alpha), base.n))
        on_base = check_detections("F1", "", base, policy.forget, policy.alpha)
        if on_base.verdict is not Verdict.FAIL:
            power = power.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "the base does not fail F1, so a pass would mean nothing"})
    return [power, check_detector("C0.detector", "The detector recognises the class", measured.detector, policy)]


def check_detector(id: str, title: str, quality: DetectorQuality, policy: GatePolicy) -> Check:
    """C0.detector: whether the detector recognises the class in real images that it was not trained on."""
    question = Question(id, title, _TRUE_POSITIVES, policy.control.min_true_positive_rate)
    rate, seen = quality.true_positive_rate, quality.holdout_positives
    return as_control(question.answer(rate, rate, seen)) if seen else question.unanswered(0, "there is no held-out real image of the class")


def check_attempts(policy: GatePolicy, attempt: int) -> Check:
    """C0.attempts: repeated tries pass by luck, so the policy limits their number."""
    question = Question("C0.attempts", "The request was not tried too often", _ATTEMPTS, float(policy.attempts))
    answer = question.answer(attempt, attempt, attempt)
    if answer.verdict is Verdict.PASS:
        return answer
    reason = f"this is try {attempt} and the policy allows {policy.attempts}: find out why the others failed before you change the policy"
    return answer.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": reason})


def check_reference(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int]) -> Check:
    """C0.reference: the reference model must pass R1 to R3, or their failure says nothing about the candidate."""
    if measured.reference is None:
        question = Question("C0.reference", "The reference model passes", _PASSED, 1.0)
        return question.unanswered(0, "it was not measured")
    checks = check_retain_side(policy.without_further_samples(), measured, measured.reference, forgotten)
    passed = sum(check.verdict is Verdict.PASS for check in checks)
    question = Question("C0.reference", "The reference model passes", _PASSED, float(len(checks)))
    failed = ", ".join(check.id for check in checks if check.verdict is not Verdict.PASS)
    answer = as_control(question.answer(passed, passed, min(check.n for check in checks)))
    return answer.model_copy(update={"reason": f"the base after a little training on retained images does not pass {failed}"}) if failed else answer
