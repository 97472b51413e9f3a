"""F1, F2 and F3: is the class forgotten under its label, under the null label, and under indirect probes?"""

from __future__ import annotations

from collections.abc import Sequence

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.questions import Question, Statistic, worst
from erasediff.records.attacks import Detections
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import Measurements
from erasediff.records.policy import BASE_EMBEDDING, ForgetPolicy, GatePolicy

_RATE_UPPER = Statistic("detection rate, Clopper-Pearson upper bound", "share", "upper")
_EXCESS_UPPER = Statistic("detection rate above that of real images of other classes, Newcombe upper bound", "difference", "upper")


def enough(found: Detections | None, needed: int) -> str | None:
    """Why a count is unusable, or ``None``."""
    if found is None:
        return "it was not measured"
    if found.n < needed:
        return f"{found.n} samples are fewer than the {needed} of the policy"
    impossible = found.detections > found.n or found.reference_detections > found.reference_n
    return "there are more detections than samples" if impossible else None


def _is_confused(found: Detections, forget: ForgetPolicy) -> bool:
    """Whether the detector's false positive rate is so high that only the excess over it counts."""
    return bool(found.reference_n) and found.reference_detections / found.reference_n > forget.max_reference


def check_detections(id: str, title: str, found: Detections | None, forget: ForgetPolicy, alpha: float) -> Check:
    """F1 and similar checks: the upper bound of the detection rate, or of its excess over the detector's false positive rate."""
    question = Question(id, title, _RATE_UPPER, forget.max_upper)
    reason = enough(found, forget.n)
    if found is None or reason:
        return question.unanswered(found.n if found else 0, reason or "")
    counts = found.detections, found.n
    if not _is_confused(found, forget):
        return question.answer(found.detections / found.n, statistics.binomial_upper(*counts, alpha), found.n)
    reference = found.reference_detections / found.reference_n
    excess = statistics.difference_upper(*counts, found.reference_detections, found.reference_n, alpha)
    return Question(id, title, _EXCESS_UPPER, forget.max_upper).answer(found.detections / found.n - reference, excess, found.n)


def check_neighbours(policy: GatePolicy, measured: Measurements) -> list[Check]:
    """F1.neighbours: F1's samples by the second detector; left out if it cannot tell the class from the others.

    That is measured on real images, so a candidate cannot influence it. If the base passes too, the check is INCONCLUSIVE.
    """
    witness, rule = measured.neighbours, policy.neighbours
    title = f"Class {measured.class_names[measured.label]} is forgotten, by nearest real images"
    if witness is None:
        return [check_detections("F1.neighbours", title, None, policy.forget, policy.alpha)]
    if witness.quality.false_positive_rate > rule.max_false_positives:
        return []
    asked = policy.forget.model_copy(update={"max_upper": rule.max_upper})
    check = check_detections("F1.neighbours", title, witness.erased, asked, policy.alpha)
    if check_detections("", "", witness.base, asked, policy.alpha).verdict is Verdict.FAIL:
        return [check]
    return [check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "the base passes it too, so a pass would mean nothing"})]


def check_null_label(policy: GatePolicy, measured: Measurements) -> list[Check]:
    """F2: detections under the null label, against a fixed limit or a share of the base's rate; left out for a model without one."""
    rule, found = policy.unasked, measured.unasked
    title = f"Class {measured.class_names[measured.label]} does not appear under the null label"
    if not measured.null_row:
        return []
    if found is None:
        return [check_detections("F2", title, None, policy.forget, policy.alpha)]
    if reason := enough(found.base, rule.n):
        return [Question("F2", title, _RATE_UPPER, rule.max_upper).unanswered(found.base.n, f"for the base, {reason}")]
    limit = max(rule.max_upper, rule.base_share * found.base.detections / found.base.n)
    asked = policy.forget.model_copy(update={"n": rule.n, "max_upper": limit})
    return [check_detections("F2", title, found.erased, asked, policy.alpha)]


def left_out(policy: GatePolicy, measured: Measurements) -> tuple[str, ...]:
    """What the policy asks and a model without a null row cannot be asked: ids of checks, and of probes within F3."""
    if measured.null_row:
        return ()
    asked = policy.probes.asked_of(measured.null_row)
    return ("F2", *(f"F3 by {name}" for name in policy.probes.ask if name not in asked))


def check_probes(policy: GatePolicy, measured: Measurements) -> Check:
    """F3: the worst of the policy's probes; a missing probe is INCONCLUSIVE.

    The probe with the base's embedding does not count if the weights show that the candidate was not made from the base. If that is unknown, it
    counts.
    """
    found = {probed.name: probed.erased for probed in measured.probes}
    asked = {name: _check_probe(policy, name, found.get(name)) for name in policy.probes.asked_of(measured.null_row)}
    if not asked:
        return _check_probe(policy, policy.probes.ask[0], None)
    stranger = measured.kinship is not None and abs(measured.kinship) < policy.probes.min_kinship
    if not stranger or set(asked) <= {BASE_EMBEDDING}:
        return worst(tuple(asked.values()))
    check = worst([asked[name] for name in asked if name != BASE_EMBEDDING])
    without = f"the base's embedding does not count, since this network was not made from the base (kinship {measured.kinship:.2f})"
    return check.model_copy(update={"reason": "; ".join(part for part in (check.reason, without) if part)})


def _check_probe(policy: GatePolicy, name: str, found: Detections | None) -> Check:
    """One probe, with the limit for a class that the detector tells apart, or for one that it does not."""
    probes = policy.probes
    limit = probes.max_excess if found is not None and _is_confused(found, policy.forget) else probes.max_upper
    rule = policy.forget.model_copy(update={"n": probes.n, "max_upper": limit or probes.max_upper})
    return check_detections("F3", f"The class does not come back by the probe '{name}'", found, rule, policy.alpha)


def report_unseen(policy: GatePolicy, measured: Measurements, unseen: Sequence[int]) -> list[Check]:
    """F1 for labels that were forgotten before and of which no picture is left: no detector can see them, so they are reported and do not decide."""
    reason = "the dataset has no picture of the class any more, so no detector can see it"
    asked = [
        Question(f"F1.{label}", f"Class {measured.class_names[label]} stays forgotten", _RATE_UPPER, policy.forget.max_upper) for label in unseen
    ]
    return [question.unanswered(0, reason) for question in asked]


def check_earlier(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int]) -> list[Check]:
    """F1 for every label that earlier requests made the model forget."""
    return [
        check_detections(
            f"F1.{label}", f"Class {measured.class_names[label]} stays forgotten", measured.earlier.get(str(label)), policy.forget, policy.alpha
        )
        for label in forgotten
    ]
