"""The verdict as text, for readers who read nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from erasediff.errors import ExitCode
from erasediff.evaluate.report.content import ReportContent
from erasediff.evaluate.report.words import percent
from erasediff.records.core import Check, Outcome, Verdict

STOPPED = "STOPPED"
_GATE_EXITS = (ExitCode.GATE_FAIL, ExitCode.GATE_INCONCLUSIVE)


def status(content: ReportContent) -> str:
    """The outcome's verdict; STOPPED if there is none, or if other records contradict a PASS."""
    outcome = content.outcome
    if outcome.verdict is None or (outcome.verdict is Verdict.PASS and (outcome.error or not content.checks or _not_passed(content.checks))):
        return STOPPED
    return outcome.verdict.value


def _not_passed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.verdict is not Verdict.PASS]


def headline(content: ReportContent) -> str:
    """The verdict in one sentence."""
    outcome, verdict, label = content.outcome, status(content), content.outcome.forget.label
    detected, kept = _detected(content), _kept(outcome)
    if verdict == Verdict.PASS:
        parts = [f"class {label} is forgotten" + (f": {detected}" if detected else ""), kept, _serving(outcome, "is now")]
    elif verdict == Verdict.FAIL:
        parts = [
            f"the erased model is rejected{_named(content.checks, Verdict.FAIL, 'failed')}",
            detected,
            kept,
            _serving(outcome, "stays"),
        ]
    elif verdict == Verdict.INCONCLUSIVE:
        named = _named(content.checks, Verdict.INCONCLUSIVE, "could not decide")
        parts = [f"the evidence is not sufficient to decide about class {label}{named}", _serving(outcome, "stays")]
    elif outcome.error:
        gate = f"the gate's verdict was {outcome.verdict}" if outcome.verdict else "there is no verdict"
        parts = [f"the run ended in step {outcome.error.step}", gate, _serving(outcome, "is")]
    elif outcome.verdict:
        failed = ", ".join(check.id for check in _not_passed(content.checks)) or "there are no checks"
        parts = [f"the records contradict each other: the outcome says PASS, but: {failed}", "do not rely on this run"]
    else:
        parts = ["the run ended before a verdict, for no recorded reason", _serving(outcome, "is")]
    return "; ".join(part for part in parts if part) + "."


def _detected(content: ReportContent) -> str:
    forget = content.outcome.forget
    if forget.detections is None or forget.n is None:
        return ""
    allowed = allowance(content)
    return f"{forget.detections:,} of {forget.n:,} samples detected" + (f" ({allowed})" if allowed else "")


def allowance(content: ReportContent) -> str:
    """The upper bound of detections, and the limit."""
    upper = content.outcome.forget.upper
    allowed = next((f"allowed {percent(check.threshold)}" for check in content.checks if check.id == "F1"), "")
    return ", ".join(part for part in ("" if upper is None else f"upper bound {percent(upper)}", allowed) if part)


def _kept(outcome: Outcome) -> str:
    if outcome.retain is None:
        return ""
    base, erased = percent(outcome.retain.accuracy_base, 1), percent(outcome.retain.accuracy_erased, 1)
    return f"retained accuracy {base}\N{NO-BREAK SPACE}→ {erased}"


def _named(checks: Sequence[Check], verdict: Verdict, what: str) -> str:
    """Name the checks that decided; a failed control decides alone."""
    decided = [check for check in checks if check.verdict is verdict]
    decided = [check for check in decided if check.id.startswith("C0")] or decided
    named = ", ".join(check.id + (f": {check.reason}" if check.reason else "") for check in decided)
    return f": {len(decided)} of {len(checks)} checks {what} ({named})" if decided else ""


def _serving(outcome: Outcome, verb: str) -> str:
    if outcome.champion is None:
        return "nothing was promoted"
    return f"champion {verb} {outcome.champion.name} version\N{NO-BREAK SPACE}{outcome.champion.version}"


def why_missing(outcome: Outcome) -> str:
    """Why a part of the report is missing."""
    if outcome.error and outcome.error.exit_code not in _GATE_EXITS:
        return f"Missing: the run ended in step {outcome.error.step} before this was made."
    return "Missing: this run recorded nothing of it."
