"""The key figures of a run."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.evaluate.report.content import ReportContent
from erasediff.evaluate.report.verdict import allowance
from erasediff.evaluate.report.words import duration, percent, signed


@dataclass(frozen=True)
class Tile:
    """A key figure with notes."""

    name: str
    value: str
    note: str
    detail: str = ""


def tiles_of(content: ReportContent) -> list[Tile]:
    """The tiles at the top of the report."""
    outcome = content.outcome
    forget, kept, champion = outcome.forget, outcome.retain, outcome.champion
    none, accuracy_note, distance_note = "\N{EN DASH}", "not measured", "not measured"
    if kept:
        accuracy_note = f"before {percent(kept.accuracy_base, 1)}" + _after_comma("change at least", kept.lower_bound, "pp")
    if kept and kept.fd_base is not None:
        distance_note = f"before {kept.fd_base:.3g}" + _after_comma("change at most", kept.fd_change_upper, "%")
    counted = "" if forget.detections is None or forget.n is None else f"{forget.detections:,} of {forget.n:,}"
    tiles = [
        Tile(f"Class {forget.label} detected", counted or none, allowance(content) or "not measured"),
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
