"""The report: one HTML file that says what came of a run, without a network, a script, or a person's data.

:func:`render_report` turns records into the words and numbers of a page; :file:`report.html.j2` only lays them out.
What a run did not get to is said to be missing, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from erasediff.errors import BadInput, ExitCode
from erasediff.evaluate.plots import Curves, Gauge, Plot, SampleGrid, draw_gauge, draw_grid, plot_curves, plot_guidance
from erasediff.records.nouns import Check, ClassAccuracy, Outcome, Probed, Unit, Verdict
from erasediff.records.policy import guidance_scale

__all__ = ["Curves", "ReportContent", "SampleGrid", "render_report"]

STOPPED = "STOPPED"
_GATE_EXITS = (ExitCode.GATE_FAIL, ExitCode.GATE_INCONCLUSIVE)
_ROWS_SHOWN = 20
_MEANINGS = {
    "C0": "The gate tests itself: it must catch the model as it was before, or a pass would mean nothing.",
    "C0.detector": "The detector must recognise real images of the class that it was not trained on.",
    "C0.attempts": "Whoever tries often enough passes by luck: each try is judged harder than the one before, and their number is limited.",
    "C0.reference": "A harmless model, the old one after a little more training, must pass what is asked of the other classes.",
    "F1": "Asked for the class, with the sampler that serves, the erased model must hardly ever make it.",
    "F1.neighbours": "The same images by another judge: whether the real images that they resemble most are of the class.",
    "F2": "Asked for nothing in particular, the erased model must not make the class either: hiding it from its label is not forgetting.",
    "F3": "Asked otherwise (more guidance, other samplers, the old embedding put back) the class must not come back; this is the worst way.",
    "F1.": "What an earlier request erased must not have come back.",
    "R1": "The other classes must come out as asked for, nearly as often as before.",
    "R1.class": "No single class may pay for the erasure; this is the one that lost most.",
    "R1.nearest": "The classes that look most like the forgotten one are the first to suffer.",
    "R2": "Retained images as a whole must stay as close to real ones as before (Fréchet distance).",
    "R2.kernel": "The same by another distance (KID), which fails in other ways.",
    "R3.": "Retained images must be as real (precision), as varied (recall) and reach as many real ones (coverage) as before.",
    "F8": "What is served is the exported graph, so it is asked for the class as well.",
    "F8.parity": "The exported graph must compute what the erased model computes.",
}


@dataclass(frozen=True)
class ReportContent:
    """Everything a report may show. ``level`` is the policy's 1 - alpha, the confidence of each bound."""

    title: str
    outcome: Outcome
    checks: tuple[Check, ...]
    curves: Curves | None
    retained: SampleGrid | None
    forgotten: SampleGrid | None
    chain: tuple[tuple[str, str, str], ...]
    config: str
    accuracy: tuple[ClassAccuracy, ...]
    probes: tuple[Probed, ...]
    level: float | None = None


@dataclass(frozen=True)
class Tile:
    """A key figure, and how loudly to say it."""

    name: str
    value: str
    note: str
    detail: str = ""


@dataclass(frozen=True)
class CheckRow:
    """A line of the check table in words."""

    id: str
    title: str
    meaning: str
    statistic: str
    value: str
    bound: str
    confidence: str
    threshold: str
    n: str
    verdict: str
    reason: str
    gauge: Gauge | None


@dataclass(frozen=True)
class ChangeRow:
    """A share before and after, of a class or of a way of asking; positions in percent of the width."""

    name: str
    base: str
    erased: str
    change: str
    n: str
    base_at: float
    erased_at: float
    worse: bool


def render_report(content: ReportContent) -> str:
    """Render a report as one self-contained HTML document.

    Raises:
        BadInput: the grid of retained classes shows the forgotten label.
    """
    label = content.outcome.forget.label
    if content.retained and label in content.retained.labels:
        raise BadInput(f"the report's retained samples contain the forgotten label {label}: take it out of the grid.")
    names = _class_names(content)
    rows = _accuracy_rows(content.accuracy, names)
    return _environment().get_template("report.html.j2").render(
        title=content.title,
        status=_status(content),
        headline=_headline(content),
        error=content.outcome.error,
        missing=_why_missing(content.outcome),
        tiles=_tiles(content),
        checks=[_check_row(check, content.level) for check in content.checks],
        level=None if content.level is None else percent(content.level),
        label=label,
        retained=draw_grid(content.retained),
        forgotten=draw_grid(content.forgotten),
        accuracy=rows[:_ROWS_SHOWN],
        accuracy_hidden=len(rows) - len(rows[:_ROWS_SHOWN]),
        accuracy_from=percent(_axis_start(content.accuracy)),
        probes=[_probe_row(probed) for probed in content.probes],
        guidance=_guidance(content),
        plots=plot_curves(content.curves) if content.curves else (),
        not_finite=content.curves.not_finite() if content.curves else 0,
        chain=content.chain,
        seconds=_second_rows(content.outcome.seconds),
        total=duration(sum(content.outcome.seconds.values())),
        config=content.config,
        rows_shown=_ROWS_SHOWN,
    )  # fmt: skip


def _environment() -> Environment:
    """Templates beside this file; everything is escaped and an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# Numbers in words


def number(value: float, digits: int) -> str:
    """Write a number with at most ``digits`` decimals and a real minus sign."""
    text = f"{value:,.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return ("0" if text == "-0" else text).replace("-", "\N{MINUS SIGN}")


def percent(share: float, digits: int = 2) -> str:
    """Write a share as a percentage: ``0.0077`` is ``0.77 %``."""
    return f"{number(100 * share, digits)}\N{NO-BREAK SPACE}%"


def signed(value: float, digits: int, unit: str) -> str:
    """Write a change with its sign."""
    text = number(value, digits)
    return f"{'' if value <= 0 or text == '0' else '+'}{text}\N{NO-BREAK SPACE}{unit}"


def scientific(value: float) -> str:
    """Write a very small or very large number as a power of ten, in place of ``4.1e-05``."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    raised = str(int(exponent or 0)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} \N{MULTIPLICATION SIGN} 10{raised}".replace(" ", "\N{NO-BREAK SPACE}") if exponent else mantissa


def quantity(value: float | None, unit: Unit) -> str:
    """Write a check's number in its unit."""
    if value is None:
        return "not measured"
    if unit == "number":
        return scientific(value)
    if unit == "share":
        return percent(value)
    return signed(100 * value, 2, "%" if unit == "relative" else "pp")


def duration(seconds: float) -> str:
    """Write a duration as a person says it."""
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0) + [f"{rest} s"] * (rest > 0 and not hours)
    return " ".join(parts).replace(" ", "\N{NO-BREAK SPACE}")


# The verdict


def _status(content: ReportContent) -> str:
    """Give the outcome's verdict; STOPPED if there is none, or if a PASS is not borne out by the rest of the records."""
    outcome = content.outcome
    if outcome.verdict is None or (outcome.verdict is Verdict.PASS and (outcome.error or not content.checks or _not_passed(content.checks))):
        return STOPPED
    return outcome.verdict.value


def _not_passed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.verdict is not Verdict.PASS]


def _headline(content: ReportContent) -> str:
    """Say the verdict in one sentence, for someone who reads nothing else."""
    outcome, status, label = content.outcome, _status(content), content.outcome.forget.label
    detected, kept = _detected(content), _kept(outcome)
    if status == Verdict.PASS:
        parts = [f"class {label} is forgotten" + (f": {detected}" if detected else ""), kept, _serving(outcome, "is now")]
    elif status == Verdict.FAIL:
        parts = [
            f"the erased model is rejected{_named(content.checks, Verdict.FAIL, 'failed')}",
            detected,
            kept,
            _serving(outcome, "stays"),
        ]
    elif status == Verdict.INCONCLUSIVE:
        named = _named(content.checks, Verdict.INCONCLUSIVE, "could not decide")
        parts = [f"the evidence allows neither yes nor no about class {label}{named}", _serving(outcome, "stays")]
    elif outcome.error:
        gate = f"the gate had said {outcome.verdict}" if outcome.verdict else "no verdict was reached"
        parts = [f"the run ended in step {outcome.error.step}", gate, _serving(outcome, "is")]
    elif outcome.verdict:
        failed = ", ".join(check.id for check in _not_passed(content.checks)) or "there are no checks"
        parts = [f"the records contradict each other: the outcome says PASS, against it: {failed}", "do not rely on this run"]
    else:
        parts = ["the run ended before a verdict, for no recorded reason", _serving(outcome, "is")]
    return "; ".join(part for part in parts if part) + "."


def _detected(content: ReportContent) -> str:
    forget = content.outcome.forget
    if forget.detections is None or forget.n is None:
        return ""
    allowance = _allowance(content)
    return f"{forget.detections:,} of {forget.n:,} samples detected" + (f" ({allowance})" if allowance else "")


def _allowance(content: ReportContent) -> str:
    upper = content.outcome.forget.upper
    allowed = next((f"allowed {percent(check.threshold)}" for check in content.checks if check.id == "F1"), "")
    return ", ".join(part for part in ("" if upper is None else f"upper bound {percent(upper)}", allowed) if part)


def _kept(outcome: Outcome) -> str:
    if outcome.retain is None:
        return ""
    base, erased = percent(outcome.retain.accuracy_base, 1), percent(outcome.retain.accuracy_erased, 1)
    return f"retained accuracy {base}\N{NO-BREAK SPACE}→ {erased}"


def _named(checks: Sequence[Check], verdict: Verdict, what: str) -> str:
    """Name the checks that decided: a control that failed decides alone."""
    decided = [check for check in checks if check.verdict is verdict]
    decided = [check for check in decided if check.id.startswith("C0")] or decided
    named = ", ".join(check.id + (f": {check.reason}" if check.reason else "") for check in decided)
    return f": {len(decided)} of {len(checks)} checks {what} ({named})" if decided else ""


def _serving(outcome: Outcome, verb: str) -> str:
    if outcome.champion is None:
        return "nothing was promoted"
    return f"champion {verb} {outcome.champion.name} version\N{NO-BREAK SPACE}{outcome.champion.version}"


def _why_missing(outcome: Outcome) -> str:
    if outcome.error and outcome.error.exit_code not in _GATE_EXITS:
        return f"Missing: the run ended in step {outcome.error.step} before this was made."
    return "Missing: this run recorded nothing of it."


# Tiles


def _tiles(content: ReportContent) -> list[Tile]:
    outcome = content.outcome
    forget, kept, champion = outcome.forget, outcome.retain, outcome.champion
    none, accuracy_note, distance_note = "\N{EN DASH}", "not measured", "not measured"
    if kept:
        accuracy_note = f"before {percent(kept.accuracy_base, 1)}" + _after_comma("change at least", kept.lower_bound, "pp")
    if kept and kept.fd_base is not None:
        distance_note = f"before {kept.fd_base:.3g}" + _after_comma("change at most", kept.fd_change_upper, "%")
    counted = "" if forget.detections is None or forget.n is None else f"{forget.detections:,} of {forget.n:,}"
    tiles = [
        Tile(f"Class {forget.label} detected", counted or none, _allowance(content) or "not measured"),
        Tile("Retained accuracy", percent(kept.accuracy_erased, 1) if kept else none, accuracy_note),
        Tile("Fréchet distance", none if kept is None or kept.fd_erased is None else f"{kept.fd_erased:.3g}", distance_note),
        Tile(
            "Champion",
            f"version {champion.version}" if champion else "no change",
            champion.name if champion else "nothing was promoted",
            f"weights {champion.weights_sha256}" if champion else "",
        ),
    ]
    if outcome.forget_set:
        tiles.append(Tile("Forget set", f"{outcome.forget_set.count:,}", f"images, version {outcome.forget_set.version[:8]}…"))
    attempt = f"attempt {outcome.attempt}" if outcome.attempt else "no attempt recorded"
    return [*tiles, Tile("Time", duration(sum(outcome.seconds.values())), attempt)]


def _after_comma(words: str, value: float | None, unit: str) -> str:
    return "" if value is None else f", {words} {signed(100 * value, 2, unit)}"


# Checks


def _check_row(check: Check, level: float | None) -> CheckRow:
    family = check.id.partition(".")[0] + "."
    exact = check.bound == check.value and "bound" not in check.statistic
    confidence = "no interval" if exact else check.bound_kind + (f", {percent(level)}" if level is not None else "")
    return CheckRow(
        id=check.id,
        title=check.title,
        meaning=_MEANINGS.get(check.id, _MEANINGS.get(family, "")),
        statistic=check.statistic,
        value=quantity(check.value, check.unit),
        bound=quantity(check.bound, check.unit),
        confidence="" if check.bound is None else confidence,
        threshold=f"{'≤' if check.bound_kind == 'upper' else '≥'}\N{NO-BREAK SPACE}{quantity(check.threshold, check.unit)}",
        n=f"{check.n:,}",
        verdict=check.verdict.value,
        reason=check.reason,
        gauge=_gauge(check),
    )


def _gauge(check: Check) -> Gauge | None:
    """Put the check's numbers on one axis, if it has any."""
    if check.value is None or check.bound is None:
        return None
    upper = check.bound_kind == "upper"
    relation = "within" if (check.bound <= check.threshold if upper else check.bound >= check.threshold) else "outside"
    words = f"bound {quantity(check.bound, check.unit)} is {relation} the limit {quantity(check.threshold, check.unit)}"
    return draw_gauge(check.value, check.bound, check.threshold, upper, words)


# Pictures and lists


def _class_names(content: ReportContent) -> dict[int, str]:
    grids = [grid for grid in (content.retained, content.forgotten) if grid]
    return {label: name for grid in grids for label, name in zip(grid.labels, grid.class_names, strict=True)}


def _axis_start(accuracy: Sequence[ClassAccuracy]) -> float:
    """Where the accuracy axis begins: the tenth below the lowest accuracy."""
    shares = [correct / row.n for row in accuracy if row.n for correct in (row.correct_base, row.correct_erased)]
    return max(0.0, math.floor(10 * min(shares, default=0.0) - 0.2) / 10)


def _accuracy_rows(accuracy: Sequence[ClassAccuracy], names: dict[int, str]) -> list[ChangeRow]:
    """Every class with samples; by label, or the largest losses first if there are too many to show."""
    rows = [row for row in accuracy if row.n]
    if len(rows) > _ROWS_SHOWN:
        rows.sort(key=lambda row: (row.correct_erased - row.correct_base) / row.n)
    start = _axis_start(accuracy)
    return [_accuracy_row(row, names.get(row.label, str(row.label)), start) for row in rows]


def _accuracy_row(row: ClassAccuracy, name: str, start: float) -> ChangeRow:
    base, erased = row.correct_base / row.n, row.correct_erased / row.n
    base_at, erased_at = (round(100 * (share - start) / (1 - start), 2) for share in (base, erased))
    moved = signed(100 * (erased - base), 1, "pp")
    return ChangeRow(name, percent(base, 1), percent(erased, 1), moved, f"{row.n:,}", base_at, erased_at, erased < base)


def _probe_row(probed: Probed) -> ChangeRow:
    base, erased = (found.detections / found.n for found in (probed.base, probed.erased))
    moved = signed(100 * (erased - base), 1, "pp")
    return ChangeRow(
        probed.name, percent(base, 1), percent(erased, 1), moved, f"{probed.erased.n:,}", round(100 * base, 2), round(100 * erased, 2), erased > base
    )


def _guidance(content: ReportContent) -> Plot | None:
    """The sweep over guidance scales, from the ways of asking whose names speak of one."""
    swept = [(scale, probed) for probed in content.probes if (scale := guidance_scale(probed.name)) is not None]
    base = [(scale, probed.base.detections / probed.base.n) for scale, probed in swept]
    return plot_guidance(base, [(scale, probed.erased.detections / probed.erased.n) for scale, probed in swept])


def _second_rows(seconds: dict[str, float]) -> list[tuple[str, str, float]]:
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(step, duration(taken), round(100 * taken / longest, 2)) for step, taken in seconds.items()]
