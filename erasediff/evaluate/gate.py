"""The gate: a pure function from policy and measurements to PASS, FAIL or INCONCLUSIVE.

A check passes only on a number that was measured on enough samples. Whatever is missing, is not finite, or comes from
too few samples is INCONCLUSIVE. C0 asks whether the gate could have failed at all: the base must be caught by F1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from erasediff.evaluate import statistics
from erasediff.records.nouns import Check, ClassAccuracy, Detections, ExportedRecord, Measurements, Parity, Verdict
from erasediff.records.policy import GatePolicy


def _decide(id: str, title: str, statistic: str, value: float, bound: float, kind: Literal["upper", "lower"], threshold: float, n: int) -> Check:
    """A check on finite numbers: an upper bound must not exceed its threshold, a lower bound must not fall below it."""
    if not (math.isfinite(value) and math.isfinite(bound)):
        return _unknown(id, title, statistic, kind, threshold, n, "the measured value is not finite")
    holds = bound <= threshold if kind == "upper" else bound >= threshold
    return Check(
        id=id,
        title=title,
        statistic=statistic,
        value=value,
        bound=bound,
        bound_kind=kind,
        threshold=threshold,
        n=n,
        verdict=Verdict.PASS if holds else Verdict.FAIL,
    )


def _unknown(id: str, title: str, statistic: str, kind: Literal["upper", "lower"], threshold: float, n: int, reason: str) -> Check:
    return Check(
        id=id,
        title=title,
        statistic=statistic,
        value=None,
        bound=None,
        bound_kind=kind,
        threshold=threshold,
        n=n,
        verdict=Verdict.INCONCLUSIVE,
        reason=reason,
    )


def _enough(found: Detections | None, needed: int) -> str | None:
    """Why a count cannot be used, or ``None`` if it can."""
    if found is None:
        return "it was not measured"
    if found.n < needed:
        return f"{found.n} samples are fewer than the {needed} of the policy"
    return "there are more detections than samples" if found.detections > found.n else None


def check_detections(id: str, title: str, found: Detections | None, needed: int, max_upper: float, alpha: float) -> Check:
    """F1 and its like: the upper bound of the detection rate."""
    statistic = "detection rate, Clopper-Pearson upper bound"
    reason = _enough(found, needed)
    if found is None or reason:
        return _unknown(id, title, statistic, "upper", max_upper, found.n if found else 0, reason or "")
    bound = statistics.binomial_upper(found.detections, found.n, alpha)
    return _decide(id, title, statistic, found.detections / found.n, bound, "upper", max_upper, found.n)


def _as_control(check: Check) -> Check:
    """A control that does not hold says that the gate has no power; it says nothing against the candidate."""
    if check.verdict is not Verdict.FAIL:
        return check
    return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "the control failed, so a pass would mean nothing"})


def check_controls(policy: GatePolicy, measured: Measurements) -> list[Check]:
    """C0: the base must be detected and must fail F1, and the detector must know the class on real images."""
    title, statistic = "The base still makes the class", "detection rate on the base, Clopper-Pearson lower bound"
    base, threshold = measured.forget_base, policy.control.min_detected
    reason = _enough(base, policy.forget.n)
    if base is None or reason:
        power = _unknown("C0", title, statistic, "lower", threshold, base.n if base else 0, reason or "")
    else:
        bound = statistics.binomial_lower(base.detections, base.n, policy.alpha)
        power = _as_control(_decide("C0", title, statistic, base.detections / base.n, bound, "lower", threshold, base.n))
        on_base = check_detections("F1", "", base, policy.forget.n, policy.forget.max_upper, policy.alpha)
        if on_base.verdict is not Verdict.FAIL:
            power = power.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "the base does not fail F1, so a pass would mean nothing"})
    rate = measured.detector.true_positive_rate
    seen, least = measured.detector.holdout_positives, policy.control.min_true_positive_rate
    title, statistic = "The detector knows the class", "true positive rate on held-out real images"
    if seen:
        detector = _decide("C0.detector", title, statistic, rate, rate, "lower", least, seen)
    else:
        detector = _unknown("C0.detector", title, statistic, "lower", least, 0, "no held-out real image is of the class")
    return [power, _as_control(detector)]


def _usable(row: ClassAccuracy, needed: int) -> bool:
    return row.n >= needed and max(row.correct_base, row.correct_erased) <= row.n


def _check_accuracy(id: str, title: str, rows: Sequence[ClassAccuracy], margin: float, policy: GatePolicy) -> Check:
    """Non-inferiority of pooled accuracy. Equal n a class makes the pooled rate the macro average."""
    statistic = "accuracy change, Newcombe lower bound"
    n = sum(row.n for row in rows)
    if len({row.label for row in rows}) < len(rows):
        return _unknown(id, title, statistic, "lower", -margin, n, "a class is listed twice")
    if not rows or not all(_usable(row, policy.retain.n_per_class) for row in rows):
        return _unknown(id, title, statistic, "lower", -margin, n, f"a class has fewer than {policy.retain.n_per_class} samples")
    if len({row.n for row in rows}) > 1:
        return _unknown(id, title, statistic, "lower", -margin, n, "the classes have unequal numbers of samples")
    base, erased = sum(row.correct_base for row in rows), sum(row.correct_erased for row in rows)
    bound = statistics.difference_lower(erased, n, base, n, policy.alpha)
    return _decide(id, title, statistic, (erased - base) / n, bound, "lower", -margin, n)


def check_retained(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int] = ()) -> list[Check]:
    """R1: macro accuracy, the worst single class, and the classes nearest to the forgotten one."""
    retain, rows = policy.retain, measured.retained
    singles = [_check_accuracy("R1.class", f"Class {row.label} is still made", [row], retain.class_margin, policy) for row in rows]
    worst = min(singles, key=lambda check: -math.inf if check.bound is None else check.bound, default=None)
    checks = [_check_accuracy("R1", "Retained classes are still made", rows, retain.macro_margin, policy)]
    if worst is not None:
        checks.append(worst.model_copy(update={"title": f"Worst class: {worst.title[0].lower()}{worst.title[1:]}"}))
    if retain.nearest:
        nearest = [row for row in rows if row.label in measured.nearest]
        named = ", ".join(str(row.label) for row in nearest)
        # A nearest class that an earlier request erased has no row; any other that is missing was not measured.
        missing = set(measured.nearest) - set(forgotten) - {row.label for row in rows}
        complete = not missing and len(set(measured.nearest)) >= min(retain.nearest, len(rows) + len(forgotten))
        near = _check_accuracy("R1.nearest", f"Nearest classes ({named}) are still made", nearest, retain.nearest_margin, policy)
        incomplete = {"verdict": Verdict.INCONCLUSIVE, "reason": f"not all of the {retain.nearest} nearest classes were measured"}
        checks.append(near if complete else near.model_copy(update=incomplete))
    return checks


def check_fidelity(policy: GatePolicy, measured: Measurements) -> Check:
    """R2: upper bound of the relative change of the Fréchet distance on retained classes."""
    title, statistic = "Retained images look as before", "relative Fréchet distance change, bias-corrected bootstrap upper bound"
    found, threshold = measured.frechet, policy.fidelity.max_relative_upper
    needed = policy.retain.n_per_class * len(measured.retained)
    if found is None or found.n < needed or found.resamples < policy.fidelity.resamples or found.fd_base <= 0:
        reason = "it was not measured" if found is None else "too few samples or resamples, or the base's distance is not positive"
        return _unknown("R2", title, statistic, "upper", threshold, found.n if found else 0, reason)
    change = found.fd_erased - found.fd_base
    bound = statistics.bias_corrected_upper(change, found.bootstrap_mean, found.bootstrap_sd, policy.alpha)
    return _decide("R2", title, statistic, change / found.fd_base, bound / found.fd_base, "upper", threshold, found.n)


def check_earlier(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int]) -> list[Check]:
    """F1 again for every label that an earlier request made the model forget."""
    return [
        check_detections(
            f"F1.{label}", f"Class {label} stays forgotten", measured.earlier.get(str(label)), policy.forget.n, policy.forget.max_upper, policy.alpha
        )
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
    forget = check_detections(
        "F1", f"Class {measured.label} is forgotten", measured.forget_erased, policy.forget.n, policy.forget.max_upper, policy.alpha
    )
    checks = [
        *check_controls(policy, measured),
        forget,
        *check_earlier(policy, measured, forgotten),
        *check_retained(policy, measured, forgotten),
        check_fidelity(policy, measured),
    ]
    return overall(checks), tuple(checks)


def run_export_gate(policy: GatePolicy, label: int, forget_onnx: Detections | None, parity: Sequence[Parity]) -> tuple[Verdict, tuple[Check, ...]]:
    """F8: F1 on the exported graph, and its largest relative distance from the denoiser."""
    export = policy.export
    again = check_detections("F8", f"Class {label} is forgotten by the exported graph", forget_onnx, export.n, export.max_upper, policy.alpha)
    title, statistic = "The exported graph is the model", "largest relative error of the denoiser"
    if not parity:
        same = _unknown("F8.parity", title, statistic, "upper", export.max_relative_error, 0, "it was not measured")
    else:
        worst = max((p.max_relative_error for p in parity), key=lambda error: math.inf if math.isnan(error) else error)
        same = _decide("F8.parity", title, statistic, worst, worst, "upper", export.max_relative_error, sum(p.batch for p in parity))
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
    """A run's verdict: the gate's, unless the exported graph did worse."""
    if gate is Verdict.PASS and exported is not None:
        return exported.verdict
    return gate
