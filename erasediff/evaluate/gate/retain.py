"""R1, R2 and R3: does the model still make the retained classes, and do they look as before?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from erasediff.evaluate import statistics
from erasediff.evaluate.gate.questions import Question, Statistic
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import ClassAccuracy, Measurements, PairedCounts, RetainMeasurements
from erasediff.records.policy import GatePolicy, RetainPolicy

_PARTS, _ALPHA = 5, 0.05  # fixed, so that a later try with a smaller alpha needs no more samples than were drawn
_ACCURACY = Statistic("accuracy change, Newcombe lower bound", "difference", "lower")
_FIDELITY = Statistic("relative Fréchet distance change, bias-corrected bootstrap upper bound", "relative", "upper")
_KERNEL = Statistic("kernel distance change, upper bound of t over blocks", "number", "upper")
_MANIFOLD = Statistic("change of the share, Newcombe lower bound for pairs", "difference", "lower")


def _usable(row: ClassAccuracy, needed: int) -> bool:
    either = row.correct_base + row.correct_erased - row.correct_both
    return row.n >= needed and row.correct_both <= min(row.correct_base, row.correct_erased) and either <= row.n


def samples_needed(row: ClassAccuracy, retain: RetainPolicy) -> int:
    """How many samples of a class R1.class needs, given how often base and candidate disagreed on the first ``n_per_class``.

    The bound should lie a fifth of the margin below the estimate. Two independently trained models disagree on every other image of a weak class;
    with 250 samples, half of the models as good as the base would fail. A class that is worse by twice the margin gets no further samples: it fails
    anyway, so stopping early cannot make it pass.
    """
    if retain.max_per_class is None or row.n < 1 or (row.correct_base - row.correct_erased) / row.n >= 2 * retain.class_margin:
        return retain.n_per_class
    disagreements = row.correct_base + row.correct_erased - 2 * row.correct_both
    needed = statistics.pairs_needed(disagreements, row.n, retain.class_margin / _PARTS, _ALPHA)
    return max(retain.n_per_class, min(needed, retain.max_per_class))


def _with_further_samples(rows: Sequence[ClassAccuracy], further: Sequence[ClassAccuracy], retain: RetainPolicy) -> list[tuple[ClassAccuracy, int]]:
    """For R1.class: each class with all its samples, and how many it needs."""
    more = {row.label: row for row in further}
    return [(more.get(row.label, row), samples_needed(row, retain)) for row in rows]


def _check_accuracy(id: str, title: str, rows: Sequence[ClassAccuracy], margin: float, policy: GatePolicy, needed: int | None = None) -> Check:
    """Non-inferiority of pooled accuracy, in pairs. With equal n per class the pooled rate is the macro average."""
    question, n = Question(id, title, _ACCURACY, -margin), sum(row.n for row in rows)
    if len({row.label for row in rows}) < len(rows):
        return question.unanswered(n, "a class is listed twice")
    needed = policy.retain.n_per_class if needed is None else needed
    if not rows or not all(_usable(row, needed) for row in rows):
        return question.unanswered(n, f"a class has fewer than {needed} samples")
    if len({row.n for row in rows}) > 1:
        return question.unanswered(n, "the classes have unequal numbers of samples")
    base, erased, both = (sum(getattr(row, f"correct_{which}") for row in rows) for which in ("base", "erased", "both"))
    bound = statistics.paired_difference_lower(both, erased - both, base - both, n, policy.alpha)
    return question.answer((erased - base) / n, bound, n)


def check_retain_side(policy: GatePolicy, measured: Measurements, found: RetainMeasurements, forgotten: Sequence[int]) -> list[Check]:
    """R1 to R3 of a model's retained classes; ``measured`` names all classes and the nearest ones."""
    return [
        *check_retained(policy, measured, found, forgotten),
        check_fidelity(policy, found),
        check_kernel(policy, found),
        *check_manifold(policy, found),
    ]


def check_retained(policy: GatePolicy, measured: Measurements, found: RetainMeasurements, forgotten: Sequence[int]) -> list[Check]:
    """R1: macro accuracy, the worst single class, and the classes nearest to the forgotten one."""
    retain, rows = policy.retain, found.accuracy
    if missing := set(range(len(measured.class_names))) - {measured.label, *forgotten} - {row.label for row in rows}:
        question = Question("R1", "The model still makes the retained classes", _ACCURACY, -retain.macro_margin)
        return [question.unanswered(sum(row.n for row in rows), f"class {measured.class_names[min(missing)]} was not measured")]
    singles = [
        _check_accuracy("R1.class", f"The model still makes class {measured.class_names[row.label]}", [row], retain.class_margin, policy, needed)
        for row, needed in _with_further_samples(rows, found.further, retain)
    ]
    worst = min(singles, key=lambda check: -math.inf if check.bound is None else check.bound, default=None)
    checks = [_check_accuracy("R1", "The model still makes the retained classes", rows, retain.macro_margin, policy)]
    if worst is not None:
        checks.append(worst.model_copy(update={"title": f"Worst class: {worst.title[0].lower()}{worst.title[1:]}"}))
    if retain.nearest:
        nearest = [row for row in rows if row.label in measured.nearest]
        named = ", ".join(measured.class_names[row.label] for row in nearest)
        complete = {row.label for row in nearest} == set(measured.nearest) and len(nearest) >= min(retain.nearest, len(rows))
        near = _check_accuracy("R1.nearest", f"The model still makes the nearest classes ({named})", nearest, retain.nearest_margin, policy)
        incomplete = {"verdict": Verdict.INCONCLUSIVE, "reason": f"not all of the {retain.nearest} nearest classes were measured"}
        checks.append(near if complete else near.model_copy(update=incomplete))
    return checks


def check_fidelity(policy: GatePolicy, measured: RetainMeasurements) -> Check:
    """R2: upper bound of the relative change of the Fréchet distance on retained classes."""
    question = Question("R2", "Retained images look as before", _FIDELITY, policy.fidelity.max_relative_upper)
    found, needed = measured.frechet, policy.retain.n_per_class * len(measured.accuracy)
    if found is None:
        return question.unanswered(0, "it was not measured")
    if found.n < needed or found.resamples < policy.fidelity.resamples or found.fd_base <= 0:
        return question.unanswered(found.n, "too few samples or resamples, or the base's distance is not positive")
    change = found.fd_erased - found.fd_base
    bound = statistics.bias_corrected_upper(change, found.bootstrap_mean, found.bootstrap_sd, policy.alpha)
    return question.answer(change / found.fd_base, bound / found.fd_base, found.n)


def check_kernel(policy: GatePolicy, measured: RetainMeasurements) -> Check:
    """R2.kernel: upper bound of the change of the kernel distance, against a share of the base's and a slack."""
    rule, found, needed = policy.fidelity, measured.kernel, policy.retain.n_per_class * len(measured.accuracy)
    limit = rule.kernel_slack + rule.kernel_share * max(0.0, found.base if found and math.isfinite(found.base) else 0.0)
    question = Question("R2.kernel", "Retained images look as before, by another distance", _KERNEL, limit)
    if found is None:
        return question.unanswered(0, "it was not measured")
    if found.n < needed or found.blocks < rule.kernel_blocks or not math.isfinite(found.base):
        return question.unanswered(found.n, "too few samples or blocks, or the base's distance is not finite")
    bound = statistics.mean_upper(found.difference, found.block_sd, found.blocks, policy.alpha)
    return question.answer(found.difference, bound, found.n)


_MANIFOLDS = {
    "precision": "Retained images are as real as before",
    "recall": "Retained images are as varied as before",
    "coverage": "Retained images cover as many real ones as before",
}


def check_manifold(policy: GatePolicy, measured: RetainMeasurements) -> list[Check]:
    """R3: non-inferiority of precision, recall and coverage, in pairs."""
    real = policy.fidelity.real_images
    needed = {"precision": policy.retain.n_per_class * len(measured.accuracy), "recall": real, "coverage": real}
    found = measured.manifold
    pairs = {name: getattr(found, name) if found else None for name in _MANIFOLDS}
    return [_check_pairs(f"R3.{name}", title, pairs[name], needed[name], policy) for name, title in _MANIFOLDS.items()]


def _check_pairs(id: str, title: str, found: PairedCounts | None, needed: int, policy: GatePolicy) -> Check:
    question = Question(id, title, _MANIFOLD, -policy.fidelity.manifold_margin)
    if found is None:
        return question.unanswered(0, "it was not measured")
    if found.n < max(1, needed):
        return question.unanswered(found.n, f"{found.n} images are fewer than the {max(1, needed)} needed")
    if found.both > min(found.base, found.erased) or found.base + found.erased - found.both > found.n:
        return question.unanswered(found.n, "the pairs contradict each other")
    bound = statistics.paired_difference_lower(found.both, found.erased - found.both, found.base - found.both, found.n, policy.alpha)
    return question.answer((found.erased - found.base) / found.n, bound, found.n)
