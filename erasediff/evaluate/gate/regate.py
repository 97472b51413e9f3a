"""The gate for a deployed model. It has no base to compare with: the model must not make its forgotten classes, and must make the others."""

from __future__ import annotations

from collections.abc import Sequence

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.controls import as_control, check_detector
from erasediff.evaluate.gate.decide import Decision, overall
from erasediff.evaluate.gate.forget import check_detections, enough
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.records.attacks import Detections
from erasediff.records.core import Check
from erasediff.records.policy import GatePolicy
from erasediff.records.regate import Recalled

_MADE = Statistic("detection rate of the retained classes, Clopper-Pearson lower bound", "share", "lower")


def run_regate(policy: GatePolicy, recalled: Sequence[Recalled], retained: Detections) -> Decision:
    """F8 for every forgotten label, under two controls: the detector recognises each class, and the graph makes the retained ones.

    Args:
        policy: sample sizes, thresholds.
        recalled: the detections of each forgotten label.
        retained: how many samples of retained labels the detector assigned to their label.
    """
    rule = policy.forget.model_copy(update={"n": policy.export.n, "max_upper": policy.export.max_upper})
    checks = [_makes_the_rest(policy, retained)]
    for one in recalled:
        checks.append(check_detector(f"C0.detector.{one.label}", f"The detector recognises class {one.name}", one.detector, policy))
        checks.append(check_detections(f"F8.{one.label}", f"The deployed graph has forgotten class {one.name}", one.found, rule, policy.alpha))
    return Decision(overall(checks), tuple(checks))


def _makes_the_rest(policy: GatePolicy, retained: Detections) -> Check:
    """A control: a graph that makes nothing would pass every F8."""
    question = Question("C0", "The deployed graph makes the retained classes", _MADE, policy.control.min_detected)
    if (reason := enough(retained, policy.export.n)) is not None:
        return question.unanswered(retained.n, reason)
    bound = statistics.binomial_lower(retained.detections, retained.n, policy.alpha)
    return as_control(question.answer(retained.detections / retained.n, bound, retained.n))
