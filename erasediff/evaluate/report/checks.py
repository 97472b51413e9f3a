"""The table of checks: what each one tests, and its numbers on one axis."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.evaluate.report.plots import Gauge, draw_gauge
from erasediff.evaluate.report.words import percent, quantity
from erasediff.records.core import Check

_MEANINGS = {
    "C0": "The gate tests itself: it must detect the class in the model before the erasure, or a pass would mean nothing.",
    "C0.detector": "The detector must recognise real images of the class that it was not trained on.",
    "C0.attempts": "Repeated tries pass by luck, so their number is limited, and each try is judged more strictly.",
    "C0.reference": "The reference model, the old one after a little more training, must pass the checks of the other classes.",
    "F1": "Under its own label, with the server's sampler, the erased model must hardly ever make the class.",
    "F1.neighbours": "The same images by another detector: are the real images that they resemble most of the class?",
    "F2": "Without a label, the erased model must not make the class either: hiding it from its label is not forgetting.",
    "F3": "The class must not come back by indirect probes: more guidance, other samplers, the old embedding. This is the worst probe.",
    "F1.": "A class that an earlier request erased must not come back.",
    "R1": "The model must make the other classes nearly as reliably as before.",
    "R1.class": "No single class may lose much accuracy; this is the one that lost most.",
    "R1.nearest": "The classes most similar to the forgotten one suffer first.",
    "R2": "Retained images as a whole must stay as close to real ones as before (Fréchet distance).",
    "R2.kernel": "The same with another distance (KID), which has other weaknesses.",
    "R3.": "Retained images must be as realistic (precision), as varied (recall) and cover as many real ones (coverage) as before.",
    "R4": "Many small changes add up: the change over all erasures since the first model.",
    "F3.partial": "From a noised image of the class, the erased model must not restore the class better than a model that never saw it.",
    "F4": "Fine-tuning on retained images only must not bring the class back, as it would if the class were only hidden.",
    "F5": "An attacker with the weights and a few images searches for an embedding that brings the class back, without changing the network.",
    "F6": "Relearning the class should take as long as for a model that never saw it; this is the fastest repeat.",
    "F7": "Samples must not be close to real images of the class, beyond how close real images of other classes are.",
    "F8.int8": "The same for the graph with 8-bit weights: rounding must not undo the erasure.",
    "F9.": "Nobody should be able to infer from the model whether an image of the class was in its training set. This needs many images.",
    "F8": "The server runs the exported graph, so it is tested as well.",
    "F8.parity": "The exported graph must compute what the erased model computes.",
}


@dataclass(frozen=True)
class CheckRow:
    """A row of the table of checks, as text."""

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


def check_row(check: Check, level: float | None) -> CheckRow:
    """A check as text; ``level`` is the confidence of its bound."""
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
