"""The gate: a pure function from policy and measurements to PASS, FAIL or INCONCLUSIVE.

A check passes only on a number that was measured on enough samples. Whatever is missing, is not finite, or comes from
too few samples is INCONCLUSIVE. C0 asks whether the gate could have failed at all: the base must be caught by F1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from erasediff.evaluate import statistics
from erasediff.records.nouns import Check, ClassAccuracy, Detections, ExportedRecord, Measurements, Pairs, Parity, Unit, Verdict
from erasediff.records.policy import ForgetPolicy, GatePolicy


@dataclass(frozen=True)
class _Statistic:
    """What a check bounds, in which unit, and from which side."""

    name: str
    unit: Unit
    kind: Literal["upper", "lower"]


_RATE_UPPER = _Statistic("detection rate, Clopper-Pearson upper bound", "share", "upper")
_EXCESS_UPPER = _Statistic("detection rate above that of real images of other classes, Newcombe upper bound", "difference", "upper")
_RATE_LOWER = _Statistic("detection rate on the base, Clopper-Pearson lower bound", "share", "lower")
_TRUE_POSITIVES = _Statistic("true positive rate on real images the detector was not trained on", "share", "lower")
_ACCURACY = _Statistic("accuracy change, Newcombe lower bound", "difference", "lower")
_FIDELITY = _Statistic("relative Fréchet distance change, bias-corrected bootstrap upper bound", "relative", "upper")
_KERNEL = _Statistic("kernel distance change, upper bound of t over blocks", "number", "upper")
_MANIFOLD = _Statistic("change of the share, Newcombe lower bound for pairs", "difference", "lower")
_PARITY = _Statistic("largest relative error of the denoiser", "number", "upper")


@dataclass(frozen=True)
class _Question:
    """A check before it is answered."""

    id: str
    title: str
    statistic: _Statistic
    threshold: float

    def answer(self, value: float, bound: float, n: int) -> Check:
        """An upper bound must not exceed the threshold, a lower bound must not fall below it; both must be finite."""
        if not (math.isfinite(value) and math.isfinite(bound)):
            return self.unanswered(n, "the measured value is not finite")
        holds = bound <= self.threshold if self.statistic.kind == "upper" else bound >= self.threshold
        return self._check(value, bound, n, Verdict.PASS if holds else Verdict.FAIL, "")

    def unanswered(self, n: int, reason: str) -> Check:
        """What was not measured, or not well enough, is INCONCLUSIVE."""
        return self._check(None, None, n, Verdict.INCONCLUSIVE, reason)

    def _check(self, value: float | None, bound: float | None, n: int, verdict: Verdict, reason: str) -> Check:
        return Check(
            id=self.id,
            title=self.title,
            statistic=self.statistic.name,
            unit=self.statistic.unit,
            value=value,
            bound=bound,
            bound_kind=self.statistic.kind,
            threshold=self.threshold,
            n=n,
            verdict=verdict,
            reason=reason,
        )


def _enough(found: Detections | None, needed: int) -> str | None:
    """Why a count cannot be used, or ``None`` if it can."""
    if found is None:
        return "it was not measured"
    if found.n < needed:
        return f"{found.n} samples are fewer than the {needed} of the policy"
    impossible = found.detections > found.n or found.reference_detections > found.reference_n
    return "there are more detections than samples" if impossible else None


def check_detections(id: str, title: str, found: Detections | None, forget: ForgetPolicy, alpha: float) -> Check:
    """F1 and its like: the upper bound of the detection rate, or of its excess over a detector's own error."""
    question = _Question(id, title, _RATE_UPPER, forget.max_upper)
    reason = _enough(found, forget.n)
    if found is None or reason:
        return question.unanswered(found.n if found else 0, reason or "")
    counts = found.detections, found.n
    reference = found.reference_detections / found.reference_n if found.reference_n else 0.0
    if reference <= forget.max_reference:
        return question.answer(found.detections / found.n, statistics.binomial_upper(*counts, alpha), found.n)
    excess = statistics.difference_upper(*counts, found.reference_detections, found.reference_n, alpha)
    return _Question(id, title, _EXCESS_UPPER, forget.max_upper).answer(found.detections / found.n - reference, excess, found.n)


def check_unasked(policy: GatePolicy, measured: Measurements) -> Check:
    """F2: what the model makes under the null label, against a fixed limit or a share of what the base made."""
    rule, found, title = policy.unasked, measured.unasked, f"Class {measured.label} is not made unasked"
    if found is None:
        return check_detections("F2", title, None, policy.forget, policy.alpha)
    if reason := _enough(found.base, rule.n):
        return _Question("F2", title, _RATE_UPPER, rule.max_upper).unanswered(found.base.n, f"of the base, {reason}")
    limit = max(rule.max_upper, rule.base_share * found.base.detections / found.base.n)
    asked = policy.forget.model_copy(update={"n": rule.n, "max_upper": limit})
    return check_detections("F2", title, found.erased, asked, policy.alpha)


_GRAVITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


def check_probes(policy: GatePolicy, measured: Measurements) -> Check:
    """F3: the worst of the ways of asking that the policy names; one that was not tried is no pass."""
    rule = policy.forget.model_copy(update={"n": policy.probes.n, "max_upper": policy.probes.max_upper})
    found = {probed.name: probed.erased for probed in measured.probes}
    asked = [
        check_detections("F3", f"Asked by {name}, the class does not come back", found.get(name), rule, policy.alpha) for name in policy.probes.ask
    ]
    return max(asked, key=lambda check: (_GRAVITY.index(check.verdict), -math.inf if check.bound is None else check.bound))


def _as_control(check: Check) -> Check:
    """A control that does not hold says that the gate has no power; it says nothing against the candidate."""
    if check.verdict is not Verdict.FAIL:
        return check
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "the control failed, so a pass would mean nothing"})


def check_controls(policy: GatePolicy, measured: Measurements) -> list[Check]:
    """C0: the base must be detected and must fail F1, and the detector must know the class on real images."""
    question = _Question("C0", "The base still makes the class", _RATE_LOWER, policy.control.min_detected)
    base, reason = measured.forget_base, _enough(measured.forget_base, policy.forget.n)
    if base is None or reason:
        power = question.unanswered(base.n if base else 0, reason or "")
    else:
        power = _as_control(question.answer(base.detections / base.n, statistics.binomial_lower(base.detections, base.n, policy.alpha), base.n))
        on_base = check_detections("F1", "", base, policy.forget, policy.alpha)
        if on_base.verdict is not Verdict.FAIL:
            power = power.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "the base does not fail F1, so a pass would mean nothing"})
    rate = measured.detector.true_positive_rate
    knows = _Question("C0.detector", "The detector knows the class", _TRUE_POSITIVES, policy.control.min_true_positive_rate)
    seen = measured.detector.holdout_positives
    detector = knows.answer(rate, rate, seen) if seen else knows.unanswered(0, "no held-out real image is of the class")
    return [power, _as_control(detector)]


def _usable(row: ClassAccuracy, needed: int) -> bool:
    either = row.correct_base + row.correct_erased - row.correct_both
    return row.n >= needed and row.correct_both <= min(row.correct_base, row.correct_erased) and either <= row.n


def _check_accuracy(id: str, title: str, rows: Sequence[ClassAccuracy], margin: float, policy: GatePolicy) -> Check:
    """Non-inferiority of pooled accuracy, pair by pair. Equal n a class makes the pooled rate the macro average."""
    question, n = _Question(id, title, _ACCURACY, -margin), sum(row.n for row in rows)
    if len({row.label for row in rows}) < len(rows):
        return question.unanswered(n, "a class is listed twice")
    if not rows or not all(_usable(row, policy.retain.n_per_class) for row in rows):
        return question.unanswered(n, f"a class has fewer than {policy.retain.n_per_class} samples")
    if len({row.n for row in rows}) > 1:
        return question.unanswered(n, "the classes have unequal numbers of samples")
    base, erased, both = (sum(getattr(row, f"correct_{which}") for row in rows) for which in ("base", "erased", "both"))
    bound = statistics.paired_difference_lower(both, erased - both, base - both, n, policy.alpha)
    return question.answer((erased - base) / n, bound, n)


def check_retained(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int]) -> list[Check]:
    """R1: macro accuracy, the worst single class, and the classes nearest to the forgotten one."""
    retain, rows = policy.retain, measured.retained
    if missing := set(range(measured.classes)) - {measured.label, *forgotten} - {row.label for row in rows}:
        question = _Question("R1", "Retained classes are still made", _ACCURACY, -retain.macro_margin)
        return [question.unanswered(sum(row.n for row in rows), f"class {min(missing)} was not measured")]
    singles = [_check_accuracy("R1.class", f"Class {row.label} is still made", [row], retain.class_margin, policy) for row in rows]
    worst = min(singles, key=lambda check: -math.inf if check.bound is None else check.bound, default=None)
    checks = [_check_accuracy("R1", "Retained classes are still made", rows, retain.macro_margin, policy)]
    if worst is not None:
        checks.append(worst.model_copy(update={"title": f"Worst class: {worst.title[0].lower()}{worst.title[1:]}"}))
    if retain.nearest:
        nearest = [row for row in rows if row.label in measured.nearest]
        named = ", ".join(str(row.label) for row in nearest)
        complete = {row.label for row in nearest} == set(measured.nearest) and len(nearest) >= min(retain.nearest, len(rows))
        near = _check_accuracy("R1.nearest", f"Nearest classes ({named}) are still made", nearest, retain.nearest_margin, policy)
        incomplete = {"verdict": Verdict.INCONCLUSIVE, "reason": f"not all of the {retain.nearest} nearest classes were measured"}
        checks.append(near if complete else near.model_copy(update=incomplete))
    return checks


def check_fidelity(policy: GatePolicy, measured: Measurements) -> Check:
    """R2: upper bound of the relative change of the Fréchet distance on retained classes."""
    question = _Question("R2", "Retained images look as before", _FIDELITY, policy.fidelity.max_relative_upper)
    found, needed = measured.frechet, policy.retain.n_per_class * len(measured.retained)
    if found is None:
        return question.unanswered(0, "it was not measured")
    if found.n < needed or found.resamples < policy.fidelity.resamples or found.fd_base <= 0:
        return question.unanswered(found.n, "too few samples or resamples, or the base's distance is not positive")
    change = found.fd_erased - found.fd_base
    bound = statistics.bias_corrected_upper(change, found.bootstrap_mean, found.bootstrap_sd, policy.alpha)
    return question.answer(change / found.fd_base, bound / found.fd_base, found.n)


def check_kernel(policy: GatePolicy, measured: Measurements) -> Check:
    """R2.kernel: upper bound of the change of the kernel distance, against a share of the base's and a slack."""
    rule, found, needed = policy.fidelity, measured.kernel, policy.retain.n_per_class * len(measured.retained)
    limit = rule.kernel_slack + rule.kernel_share * max(0.0, found.base if found and math.isfinite(found.base) else 0.0)
    question = _Question("R2.kernel", "Retained images look as before, by another distance", _KERNEL, limit)
    if found is None:
        return question.unanswered(0, "it was not measured")
    if found.n < needed or found.blocks < rule.kernel_blocks or not math.isfinite(found.base):
        return question.unanswered(found.n, "too few samples or blocks, or the base's distance is not finite")
    bound = statistics.mean_upper(found.difference, found.block_sd, found.blocks, policy.alpha)
    return question.answer(found.difference, bound, found.n)


_MANIFOLDS = {
    "precision": "Retained images are as real as before",
    "recall": "Retained images are as varied as before",
    "coverage": "Retained images reach as many real ones as before",
}


def check_manifold(policy: GatePolicy, measured: Measurements) -> list[Check]:
    """R3: non-inferiority of precision, recall and coverage, in pairs."""
    real = policy.fidelity.real_images
    needed = {"precision": policy.retain.n_per_class * len(measured.retained), "recall": real, "coverage": real}
    found = measured.manifold
    pairs = {name: getattr(found, name) if found else None for name in _MANIFOLDS}
    return [_check_pairs(f"R3.{name}", title, pairs[name], needed[name], policy) for name, title in _MANIFOLDS.items()]


def _check_pairs(id: str, title: str, found: Pairs | None, needed: int, policy: GatePolicy) -> Check:
    question = _Question(id, title, _MANIFOLD, -policy.fidelity.manifold_margin)
    if found is None:
        return question.unanswered(0, "it was not measured")
    if found.n < max(1, needed):
        return question.unanswered(found.n, f"{found.n} images are fewer than the {max(1, needed)} that are needed")
    if found.both > min(found.base, found.erased) or found.base + found.erased - found.both > found.n:
        return question.unanswered(found.n, "the pairs contradict each other")
    bound = statistics.paired_difference_lower(found.both, found.erased - found.both, found.base - found.both, found.n, policy.alpha)
    return question.answer((found.erased - found.base) / found.n, bound, found.n)


def check_earlier(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int]) -> list[Check]:
    """F1 again for every label that an earlier request made the model forget."""
    return [
        check_detections(f"F1.{label}", f"Class {label} stays forgotten", measured.earlier.get(str(label)), policy.forget, policy.alpha)
        for label in forgotten
    ]


def run_gate(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int] = ()) -> tuple[Verdict, tuple[Check, ...]]:
    """Decide.

    Args:
        policy: checks, sample sizes, thresholds.
        measured: what was measured on base and candidate.
        forgotten: labels that earlier requests erased from the base.

    Returns:
        The verdict and one line for each check.
    """
    forget = check_detections("F1", f"Class {measured.label} is forgotten", measured.forget_erased, policy.forget, policy.alpha)
    checks = [
        *check_controls(policy, measured),
        forget,
        check_unasked(policy, measured),
        check_probes(policy, measured),
        *check_earlier(policy, measured, forgotten),
        *check_retained(policy, measured, forgotten),
        check_fidelity(policy, measured),
        check_kernel(policy, measured),
        *check_manifold(policy, measured),
    ]
    return overall(checks), tuple(checks)


def run_export_gate(policy: GatePolicy, label: int, forget_onnx: Detections | None, parity: Sequence[Parity]) -> tuple[Verdict, tuple[Check, ...]]:
    """F8: F1 on the exported graph, and its largest relative distance from the denoiser."""
    export = policy.export
    rule = policy.forget.model_copy(update={"n": export.n, "max_upper": export.max_upper})
    again = check_detections("F8", f"Class {label} is forgotten by the exported graph", forget_onnx, rule, policy.alpha)
    question = _Question("F8.parity", "The exported graph is the model", _PARITY, export.max_relative_error)
    if not parity:
        return overall([again, unmeasured := question.unanswered(0, "it was not measured")]), (again, unmeasured)
    worst = max((p.max_relative_error for p in parity), key=lambda error: math.inf if math.isnan(error) else error)
    same = question.answer(worst, worst, sum(p.batch for p in parity))
    return overall([again, same]), (again, same)


def overall(checks: Sequence[Check]) -> Verdict:
    """INCONCLUSIVE controls void everything; otherwise one FAIL fails, and only all PASS pass."""
    controls = [check.verdict for check in checks if check.id.startswith("C0")]
    verdicts = [check.verdict for check in checks]
    if any(verdict is not Verdict.PASS for verdict in controls):
        return Verdict.INCONCLUSIVE
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts and all(verdict is Verdict.PASS for verdict in verdicts) else Verdict.INCONCLUSIVE


def final_verdict(gate: Verdict | None, exported: ExportedRecord | None) -> Verdict | None:
    """A run's verdict: the gate's, unless it is PASS: then the exported graph's, for that is what serves; ``None`` before both."""
    if gate is not Verdict.PASS:
        return gate
    return None if exported is None else exported.verdict
