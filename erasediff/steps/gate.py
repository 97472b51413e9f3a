"""Run the gate and record its verdict."""

from __future__ import annotations

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import others_of
from erasediff.attempts.tries import record_try, tries
from erasediff.errors import IntegrityError
from erasediff.evaluate.gate import History, run_gate
from erasediff.records.core import BaseRecord, Check, VerdictRecord
from erasediff.records.measurements import Measurements
from erasediff.tracking import Tracking


def gate(attempt: Attempt) -> VerdictRecord:
    """Decide on this attempt.

    Raises:
        BadInput: an earlier step is missing.
    """
    base, measured, policy = attempt.need(BaseRecord), attempt.need(Measurements), attempt.policy()
    check_judges(attempt, base, measured)
    history = history_of(attempt, base)
    decision, alpha = run_gate(policy, measured, history), policy.alpha_of(history.attempt)
    record_try(attempt, "gate", decision.verdict)
    log_checks(attempt, (*decision.checks, *decision.reported), alpha)
    return VerdictRecord(
        verdict=decision.verdict,
        attempt=history.attempt,
        alpha=alpha,
        alpha_spent=min(1.0, sum(policy.alpha_of(n) for n in range(1, history.attempt + 1))),
        policy_digest=policy.digest(),
        evaluation_key=attempt.evaluation_key().hex(),
        checks=decision.checks,
        reported=decision.reported,
        left_out=decision.left_out,
    )


def history_of(attempt: Attempt, base: BaseRecord) -> History:
    """What earlier attempts and erasures mean for this gate."""
    beside = tuple(other.plan().position for other in others_of(attempt))
    return History(base.model.rows_forgotten, base.drift, tries(attempt), beside)


def check_judges(attempt: Attempt, base: BaseRecord, measured: Measurements) -> None:
    """Refuse measurements by other detectors or features than those pinned before the erasure."""
    seen = {"classifier": measured.detector.sha256, "features": measured.features}
    if measured.neighbours is not None:
        seen["neighbours"] = measured.neighbours.quality.sha256
    if base.judges is None or not seen.items() <= base.judges.model_dump().items():
        raise IntegrityError(
            f"the measurements of run {attempt.name} were made with other detectors or features than those pinned before the erasure: "
            "run `erasediff evaluate` again with the pinned ones, or use another --run."
        )


def log_checks(attempt: Attempt, checks: tuple[Check, ...], alpha: float) -> None:
    """Log every check to MLflow."""
    Tracking(attempt.workdir.root).log_metrics(attempt.plan().mlflow_run_id, metrics_of(checks, alpha))


def metrics_of(checks: tuple[Check, ...], alpha: float) -> dict[str, float]:
    """Every check's value and bound; a bound's name has its confidence: ``gate.f1.upper95``."""
    metrics, level = dict[str, float](), f"{100 * (1 - alpha):g}"
    for check in checks:
        name = f"gate.{check.id.lower()}"
        if check.value is not None and check.bound is not None:
            metrics |= {f"{name}.value": check.value, f"{name}.{check.bound_kind}{level}": check.bound}
        metrics[f"{name}.passed"] = float(check.verdict == "PASS")
    return metrics
