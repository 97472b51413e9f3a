"""Shares before and after the erasure: of the retained classes, and of the probes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from erasediff.evaluate.report.content import ReportContent
from erasediff.evaluate.report.plots import Plot, plot_guidance, plot_recovery
from erasediff.evaluate.report.words import percent, signed
from erasediff.records.attacks import AttackMeasurements, Compared
from erasediff.records.measurements import ClassAccuracy, Probed
from erasediff.records.policy import guidance_scale

ROWS_SHOWN = 20


@dataclass(frozen=True)
class ChangeRow:
    """A share before and after, of a class or a probe; positions are in percent of the width."""

    name: str
    base: str
    erased: str
    change: str
    n: str
    base_at: float
    erased_at: float
    worse: bool
    without: str = ""


def axis_start(accuracy: Sequence[ClassAccuracy]) -> float:
    """Where the accuracy axis begins: the tenth below the lowest accuracy."""
    shares = [correct / row.n for row in accuracy if row.n for correct in (row.correct_base, row.correct_erased)]
    return max(0.0, math.floor(10 * min(shares, default=0.0) - 0.2) / 10)


def accuracy_rows(accuracy: Sequence[ClassAccuracy], names: Sequence[str]) -> list[ChangeRow]:
    """Every class with samples, in the model's order; if there are too many to show, the largest losses come first."""
    rows = [row for row in accuracy if row.n]
    if len(rows) > ROWS_SHOWN:
        rows.sort(key=lambda row: (row.correct_erased - row.correct_base) / row.n)
    start = axis_start(accuracy)
    return [_accuracy_row(row, names[row.label], start) for row in rows]


def _accuracy_row(row: ClassAccuracy, name: str, start: float) -> ChangeRow:
    base, erased = row.correct_base / row.n, row.correct_erased / row.n
    base_at, erased_at = (round(100 * (share - start) / (1 - start), 2) for share in (base, erased))
    moved = signed(100 * (erased - base), 1, "pp")
    return ChangeRow(name, percent(base, 1), percent(erased, 1), moved, f"{row.n:,}", base_at, erased_at, erased < base)


def attack_rows(attacks: AttackMeasurements | None) -> list[ChangeRow]:
    """Detections after the attacks of tier 2, also on a model without the class."""
    if attacks is None:
        return []
    named = {
        "fine-tuning on retained images": attacks.finetuned,
        "inverted embedding": attacks.inverted,
        "noised images of the class": attacks.partial,
    }
    return [_attack_row(name, found) for name, found in named.items()]


def _attack_row(name: str, found: Compared) -> ChangeRow:
    row = probe_row(Probed(name=name, base=found.base, erased=found.erased))
    without = found.retrained
    return row if without is None else replace(row, without=percent(without.detections / without.n, 1))


def probe_row(probed: Probed) -> ChangeRow:
    """Detections of one probe, before and after."""
    base, erased = (found.detections / found.n for found in (probed.base, probed.erased))
    moved = signed(100 * (erased - base), 1, "pp")
    return ChangeRow(
        probed.name, percent(base, 1), percent(erased, 1), moved, f"{probed.erased.n:,}", round(100 * base, 2), round(100 * erased, 2), erased > base
    )


def guidance(content: ReportContent) -> Plot | None:
    """The sweep over guidance scales, from the probes with a scale."""
    swept = [(scale, probed) for probed in content.probes if (scale := guidance_scale(probed.name)) is not None]
    base = [(scale, probed.base.detections / probed.base.n) for scale, probed in swept]
    return plot_guidance(base, [(scale, probed.erased.detections / probed.erased.n) for scale, probed in swept])


def recovery(content: ReportContent) -> Plot | None:
    """How fast the class is relearned, if that was measured."""
    if content.attacks is None:
        return None
    found = content.attacks.relearned
    return plot_recovery([one.curve for one in found.erased], [one.curve for one in found.retrained])
