"""All checks of a policy put together, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from erasediff.evaluate.gate.controls import check_attempts, check_controls
from erasediff.evaluate.gate.forget import check_detections, check_earlier, check_neighbours, check_probes, check_unasked
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.evaluate.gate.retain import check_retain_side
from erasediff.records.nouns import Check, Detections, ExportedRecord, Measurements, Parity, Verdict
from erasediff.records.policy import GatePolicy

_PARITY = Statistic("largest relative error of the denoiser", "number", "upper")


def run_gate(policy: GatePolicy, measured: Measurements, forgotten: Sequence[int] = (), attempt: int = 1) -> tuple[Verdict, tuple[Check, ...]]:
    """Decide.

    Args:
        policy: checks, sample sizes, thresholds.
        measured: what was measured on base and candidate.
        forgotten: labels that earlier requests erased from the base.
        attempt: which try at the request this is, from 1.

    Returns:
        The verdict and one line for each check.
    """
    tried, policy = check_attempts(policy, attempt), policy.for_attempt(attempt)
    forget = check_detections("F1", f"Class {measured.label} is forgotten", measured.forget_erased, policy.forget, policy.alpha)
    checks = [
        tried,
        *check_controls(policy, measured, forgotten),
        forget,
        *check_neighbours(policy, measured),
        check_unasked(policy, measured),
        check_probes(policy, measured),
        *check_earlier(policy, measured, forgotten),
        *check_retain_side(policy, measured, measured.retained, forgotten),
    ]
    return overall(checks), tuple(checks)


def run_export_gate(policy: GatePolicy, label: int, forget_onnx: Detections | None, parity: Sequence[Parity]) -> tuple[Verdict, tuple[Check, ...]]:
    """F8: F1 on the exported graph, and its largest relative distance from the denoiser."""
    export = policy.export
    rule = policy.forget.model_copy(update={"n": export.n, "max_upper": export.max_upper})
    again = check_detections("F8", f"Class {label} is forgotten by the exported graph", forget_onnx, rule, policy.alpha)
    question = Question("F8.parity", "The exported graph is the model", _PARITY, export.max_relative_error)
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
