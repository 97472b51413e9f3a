"""The report: one self-contained HTML file about a run, without scripts or personal data.

:func:`render_report` turns records into text and numbers; :file:`report.html.j2` only lays them out. Missing parts are named, with the reason.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from erasediff.errors import BadInput
from erasediff.evaluate.report.changes import ROWS_SHOWN, accuracy_rows, attack_rows, axis_start, guidance, probe_row, recovery
from erasediff.evaluate.report.checks import check_row
from erasediff.evaluate.report.content import ReportContent
from erasediff.evaluate.report.plots import Curves, SampleGrid, draw_grid, plot_curves
from erasediff.evaluate.report.tiles import tiles_of
from erasediff.evaluate.report.verdict import headline, status, why_missing
from erasediff.evaluate.report.words import duration, percent
from erasediff.records.core import Failure, left_out_in_words
from erasediff.steps.table import step_named

__all__ = ["Curves", "ReportContent", "SampleGrid", "render_failure", "render_report"]


def render_report(content: ReportContent) -> str:
    """Render a report as one self-contained HTML document.

    Raises:
        BadInput: the grid of retained classes shows the forgotten label.
    """
    label = content.outcome.forget.label
    if content.retained and label in content.retained.class_names:
        raise BadInput(f"the report's retained samples contain the forgotten class {label}: take it out of the grid.")
    rows = accuracy_rows(content.accuracy, content.class_names)
    return _environment().get_template("report.html.j2").render(
        title=content.title,
        status=status(content),
        headline=headline(content),
        error=content.outcome.error,
        missing=why_missing(content.outcome),
        tiles=tiles_of(content),
        checks=[check_row(check, content.level) for check in content.checks],
        level=None if content.level is None else percent(content.level),
        label=label,
        compared=content.compared,
        left_out=left_out_in_words(content.left_out),
        retained=draw_grid(content.retained),
        forgotten=draw_grid(content.forgotten),
        accuracy=rows[:ROWS_SHOWN],
        accuracy_hidden=len(rows) - len(rows[:ROWS_SHOWN]),
        accuracy_from=percent(axis_start(content.accuracy)),
        probes=[probe_row(probed) for probed in content.probes],
        guidance=guidance(content),
        reported=[check_row(check, content.level) for check in content.reported],
        attacks=attack_rows(content.attacks),
        recovery=recovery(content),
        plots=plot_curves(content.curves) if content.curves else (),
        not_finite=content.curves.not_finite() if content.curves else 0,
        chain=content.chain,
        seconds=_second_rows(content.outcome.seconds),
        total=duration(sum(content.outcome.seconds.values())),
        config=content.config,
        rows_shown=ROWS_SHOWN,
    )  # fmt: skip


def render_failure(failure: Failure) -> str:
    """Render the report of a run that has no attempt: one page with the sentence that says why."""
    page = _environment().get_template("failure.html.j2")
    return page.render(step=step_named(failure.step), message=failure.message, exit_code=failure.exit_code)


def _environment() -> Environment:
    """Load templates beside this file; everything is escaped, and an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _second_rows(seconds: dict[str, float]) -> list[tuple[str, str, float]]:
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(step, duration(taken), round(100 * taken / longest, 2)) for step, taken in seconds.items()]
