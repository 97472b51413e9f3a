"""The table of checks: what each asks in plain language, and its numbers on one axis."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.evaluate.report.plots import Gauge, draw_gauge
from erasediff.evaluate.report.words import percent, quantity
from erasediff.records.nouns import Check

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
    "R4": "Many erasures that each cost little may cost much together: the change since the first model, from one to the next.",
    "F3.partial": "Shown a noisy picture of the class, the erased model must not complete it any better than one that never had the class.",
    "F4": "After some more training on retained images alone the class must not have come back: a thin disguise wears off.",
    "F5": "Whoever has the weights and a few pictures may look for an embedding that brings the class back; the network stays as it is.",
    "F6": "Teaching the class again should take as long as it takes a model that never had it; this is the fastest repeat.",
    "F7": "Real images of the class must not have a sample among their nearest neighbours, beyond what other classes' images are.",
    "F8.int8": "The graph with weights of 8 bits is asked as well: rounding must not undo what was moved a little.",
    "F9.": "Whether an image of the class was trained on should not be seen in how the model treats it; few images cannot show that.",
    "F8": "What is served is the exported graph, so it is asked for the class as well.",
    "F8.parity": "The exported graph must compute what the erased model computes.",
}


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


def check_row(check: Check, level: float | None) -> CheckRow:
    """A check in words; ``level`` is the confidence of its bound."""
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
