"""The gate for a model that serves already: it has no base beside it any more, so it is asked for what it forgot, and whether it makes the rest."""

from __future__ import annotations

from collections.abc import Sequence

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.controls import as_control, check_detector
from erasediff.evaluate.gate.decide import Decision, overall
from erasediff.evaluate.gate.forget import check_detections, enough
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.records.attacks import Detections
from erasediff.records.nouns import Check
from erasediff.records.policy import GatePolicy
from erasediff.records.regate import Recalled

_MADE = Statistic("detection rate of the retained classes, Clopper-Pearson lower bound", "share", "lower")


def run_regate(policy: GatePolicy, recalled: Sequence[Recalled], retained: Detections) -> Decision:
    """F8 for every label that the model has forgotten, under two controls: the detector knows each of them, and the graph makes the other classes.

    Args:
        policy: sample sizes, thresholds.
        recalled: a count for each forgotten label.
        retained: how many samples of the retained labels the same detector called their label.
    """
    rule = policy.forget.model_copy(update={"n": policy.export.n, "max_upper": policy.export.max_upper})
    checks = [_makes_the_rest(policy, retained)]
    for one in recalled:
        checks.append(check_detector(f"C0.detector.{one.label}", f"The detector knows class {one.label}", one.detector, policy))
        checks.append(check_detections(f"F8.{one.label}", f"Class {one.label} is forgotten by the graph that serves", one.found, rule, policy.alpha))
    return Decision(overall(checks), tuple(checks))


def _makes_the_rest(policy: GatePolicy, retained: Detections) -> Check:
    """A graph that makes nothing passes every F8, so it has to make something."""
    question = Question("C0", "The graph that serves makes the retained classes", _MADE, policy.control.min_detected)
    if (reason := enough(retained, policy.export.n)) is not None:
        return question.unanswered(retained.n, reason)
    bound = statistics.binomial_lower(retained.detections, retained.n, policy.alpha)
    return as_control(question.answer(retained.detections / retained.n, bound, retained.n))
