"""Ask the gate, and write its answer down."""

from __future__ import annotations

from erasediff.errors import IntegrityError
from erasediff.evaluate.gate import History, run_gate
from erasediff.records.measurements import Measurements
from erasediff.records.nouns import BaseRecord, Check, VerdictRecord
from erasediff.records.workdir import Run
from erasediff.steps.decided import verdict_of
from erasediff.steps.tries import keep_try, tries
from erasediff.tracking import Tracking


def gate(run: Run) -> VerdictRecord:
    """The verdict on this attempt.

    Raises:
        BadInput: an earlier step is missing.
    """
    base, measured = run.need(BaseRecord, "train-base"), run.need(Measurements, "evaluate")
    return run.made(VerdictRecord, verdict_of(run), lambda: _decide(run, base, measured))


def history_of(run: Run, base: BaseRecord) -> History:
    """What came before this attempt."""
    beside = tuple(other.plan().request.label for other in run.others())
    return History(base.model.forgotten, base.drift, tries(run), beside)


def check_judges(run: Run, base: BaseRecord, measured: Measurements) -> None:
    """Refuse measurements by other detectors, or of other features, than those that were appointed before the erasure."""
    seen = {"classifier": measured.detector.sha256, "features": measured.features}
    if measured.neighbours is not None:
        seen["neighbours"] = measured.neighbours.quality.sha256
    if base.judges is None or not seen.items() <= base.judges.model_dump().items():
        raise IntegrityError(
            f"the measurements of run {run.name} were made by other detectors, or of other features, than were appointed before the erasure: "
            "run `erasediff evaluate` with the appointed ones, or the command under another --run."
        )


def _decide(run: Run, base: BaseRecord, measured: Measurements) -> VerdictRecord:
    check_judges(run, base, measured)
    policy, history = run.policy(), history_of(run, base)
    decision, attempt = run_gate(policy, measured, history), history.attempt
    keep_try(run, "gate", decision.verdict)
    log_checks(run, (*decision.checks, *decision.reported), policy.alpha_of(attempt))
    return VerdictRecord(
        verdict=decision.verdict,
        attempt=attempt,
        alpha=policy.alpha_of(attempt),
        alpha_spent=min(1.0, sum(policy.alpha_of(n) for n in range(1, attempt + 1))),
        policy_digest=policy.digest(),
        evaluation_key=run.evaluation_key().hex(),
        checks=decision.checks,
        reported=decision.reported,
    )


def log_checks(run: Run, checks: tuple[Check, ...], alpha: float) -> None:
    """Log every check to MLflow."""
    Tracking(run.workdir.root).log_metrics(run.plan().mlflow_run_id, metrics_of(checks, alpha))


def metrics_of(checks: tuple[Check, ...], alpha: float) -> dict[str, float]:
    """Every check's value and bound; a bound is named by its confidence: ``gate.f1.upper95``."""
    metrics, level = dict[str, float](), f"{100 * (1 - alpha):g}"
    for check in checks:
        name = f"gate.{check.id.lower()}"
        if check.value is not None and check.bound is not None:
            metrics |= {f"{name}.value": check.value, f"{name}.{check.bound_kind}{level}": check.bound}
        metrics[f"{name}.passed"] = float(check.verdict == "PASS")
    return metrics
