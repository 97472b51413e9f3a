"""Ask the gate, and write its answer down."""

from __future__ import annotations

from erasediff.evaluate.gate import run_gate
from erasediff.records.nouns import BaseRecord, Check, Measurements, VerdictRecord
from erasediff.records.workdir import Run
from erasediff.tracking import Tracking


def gate(run: Run) -> VerdictRecord:
    """The verdict on this attempt.

    Raises:
        BadInput: an earlier step is missing.
    """
    base, measured = run.need(BaseRecord, "train-base"), run.need(Measurements, "evaluate")
    made_from = {"measurements": measured.digest(), "policy": run.policy().digest(), "base": base.digest()}
    return run.made(VerdictRecord, made_from, lambda: _decide(run, base, measured))


def _decide(run: Run, base: BaseRecord, measured: Measurements) -> VerdictRecord:
    plan, policy = run.plan(), run.policy()
    verdict, checks = run_gate(policy, measured, base.model.forgotten)
    log_checks(run, checks)
    return VerdictRecord(verdict=verdict, attempt=plan.attempt, policy_digest=policy.digest(), checks=checks)


def log_checks(run: Run, checks: tuple[Check, ...]) -> None:
    """Log every check's value and bound to MLflow."""
    metrics: dict[str, float] = {}
    for check in checks:
        name = f"gate.{check.id.lower()}"
        if check.value is not None and check.bound is not None:
            metrics |= {f"{name}.value": check.value, f"{name}.{check.bound_kind}": check.bound}
        metrics[f"{name}.passed"] = float(check.verdict == "PASS")
    Tracking(run.workdir.root).log_metrics(run.plan().mlflow_run_id, metrics)
