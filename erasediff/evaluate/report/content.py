"""The content of a report."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.evaluate.report.plots import Curves, SampleGrid
from erasediff.records.attacks import AttackMeasurements
from erasediff.records.core import Check, Outcome
from erasediff.records.measurements import ClassAccuracy, Probed


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows. ``level`` is the confidence of each bound; ``class_names`` are the model's, in order.

    ``checks`` decided, ``reported`` did not; ``attacks`` are those of tier 2.
    ``compared`` says what the forget set was compared with; ``left_out`` names what the model could not be asked.
    """

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
    class_names: tuple[str, ...] = ()
    level: float | None = None
    reported: tuple[Check, ...] = ()
    attacks: AttackMeasurements | None = None
    compared: str = ""
    left_out: tuple[str, ...] = ()
