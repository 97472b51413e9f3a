"""Run all checks of a policy and decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from erasediff.evaluate.gate.attacks import check_attacks
from erasediff.evaluate.gate.controls import check_attempts, check_controls
from erasediff.evaluate.gate.forget import (
    check_detections,
    check_earlier,
    check_neighbours,
    check_null_label,
    check_probes,
    left_out,
    report_unseen,
)
from erasediff.evaluate.gate.history import History, check_drift
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.evaluate.gate.retain import check_retain_side
from erasediff.records.attacks import Detections
from erasediff.records.core import Check, ExportedRecord, Parity, Verdict
from erasediff.records.measurements import Measurements
from erasediff.records.policy import GatePolicy

_PARITY = Statistic("largest relative error of the denoiser", "number", "upper")
_FIRST = History()


@dataclass(frozen=True)
class Decision:
    """The verdict, the checks that decided, those that are only reported, and what could not be asked of the model."""

    verdict: Verdict
    checks: tuple[Check, ...]
    reported: tuple[Check, ...] = ()
    left_out: tuple[str, ...] = ()


def run_gate(policy: GatePolicy, measured: Measurements, history: History = _FIRST) -> Decision:
    """Decide.

    Args:
        policy: checks, sample sizes, thresholds.
        measured: what was measured on base and candidate.
        history: earlier erasures and tries.
    """
    tried, policy = check_attempts(policy, history.attempt), policy.for_attempt(history.attempt)
    decisive, reported = check_attacks(policy, measured)
    unseen = [label for label in history.forgotten if label in measured.unseen]
    forget = check_detections("F1", f"Class {measured.class_names[measured.label]} is forgotten", measured.forget_erased, policy.forget, policy.alpha)
    checks = [
        tried,
        *check_controls(policy, measured, history.lost),
        forget,
        *check_neighbours(policy, measured),
        *check_null_label(policy, measured),
        check_probes(policy, measured),
        *check_earlier(policy, measured, [label for label in history.forgotten if label not in unseen]),
        *check_retain_side(policy, measured, measured.retained, history.lost),
        *check_drift(policy, measured, history),
        *decisive,
    ]
    reported = (*reported, *report_unseen(policy, measured, unseen))
    return Decision(overall(checks), tuple(checks), reported, left_out(policy, measured))


def run_export_gate(
    policy: GatePolicy, name: str, forget_onnx: Detections | None, parity: Sequence[Parity], forget_int8: Detections | None = None
) -> Decision:
    """F8: F1 on the exported graph, and its largest relative error against the denoiser; on tier 2 also with 8-bit weights.

    Args:
        policy: checks, sample sizes, thresholds.
        name: of the class that was to be forgotten.
        forget_onnx: detections on the graph.
        parity: its errors.
        forget_int8: detections on the graph with 8-bit weights.
    """
    export, title = policy.export, f"The exported graph has forgotten class {name}"
    rule = policy.forget.model_copy(update={"n": export.n, "max_upper": export.max_upper})
    checks = [check_detections("F8", title, forget_onnx, rule, policy.alpha), _check_parity(policy, parity)]
    if policy.tier == 2:
        rounded = rule.model_copy(update={"max_upper": policy.attacks.quantised.max_upper})
        checks.append(check_detections("F8.int8", f"{title}, with 8-bit weights", forget_int8, rounded, policy.alpha))
    return Decision(overall(checks), tuple(checks))


def _check_parity(policy: GatePolicy, parity: Sequence[Parity]) -> Check:
    question = Question("F8.parity", "The exported graph computes what the model computes", _PARITY, policy.export.max_relative_error)
    if not parity:
        return question.unanswered(0, "it was not measured")
    worst = max((p.max_relative_error for p in parity), key=lambda error: math.inf if math.isnan(error) else error)
    return question.answer(worst, worst, sum(p.batch for p in parity))


def overall(checks: Sequence[Check]) -> Verdict:
    """A control that did not pass makes the verdict INCONCLUSIVE. Otherwise one FAIL means FAIL, and PASS needs every check to pass."""
    controls = [check.verdict for check in checks if check.id.startswith("C0")]
    verdicts = [check.verdict for check in checks]
    if any(verdict is not Verdict.PASS for verdict in controls):
        return Verdict.INCONCLUSIVE
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts and all(verdict is Verdict.PASS for verdict in verdicts) else Verdict.INCONCLUSIVE


def final_verdict(gate: Verdict | None, exported: ExportedRecord | None) -> Verdict | None:
    """A run's verdict: the gate's if it is not PASS, else the exported graph's; ``None`` until it is known."""
    if gate is not Verdict.PASS:
        return gate
    return None if exported is None else exported.verdict
