"""``python -m benchmarks.rates``: every rival at several learning rates, on one label and a seed that no other table uses.

``benchmarks.erase`` runs each rival at the rate that did best here (:func:`best`); EraseDiff's rate, tuned by hand on such
seeds too (docs/algorithm.md), and ``retrain``'s, the base's, are not chosen by this. Rows go to ``results/rates.json``.
"""

from __future__ import annotations

import math

from benchmarks.erase import KEPT, METHODS, Case, measure
from benchmarks.kept import run_kept
from benchmarks.results_file import Row, write_rows
from benchmarks.subjects import subject

LABEL, SEED = 8, 7
TRIED = {"digits": (2e-4, 5e-4, 1e-3, 2e-3), "fashion-mnist": (2e-4, 5e-4, 2e-3)}
RIVALS = tuple(method for method in METHODS if method not in ("erasediff", "retrain"))


def cases() -> list[Case]:
    """One case a dataset, rate and rival."""
    return [
        Case(subject(name), method, LABEL, SEED, (("learning_rate", rate),)) for name, rates in TRIED.items() for rate in rates for method in RIVALS
    ]


def _rank(row: Row) -> tuple[float, ...]:
    """Small is good: few checks failed, then the gate reached soon, then much forgotten, then a small Fréchet distance."""
    if row["verdict"] == "diverged":
        return (math.inf,)
    seconds = math.inf if row["seconds_to_gate"] is None else row["seconds_to_gate"]
    return (len(row["failed"]), seconds, -row["ua"], row["fd_change"])


def best(rows: list[Row]) -> dict[str, dict[str, float]]:
    """The learning rate of each rival that did best, by dataset and method."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row["dataset"], {}).setdefault(row["method"], []).append(row)
    return {dataset: {method: min(tried, key=_rank)["learning_rate"] for method, tried in methods.items()} for dataset, methods in found.items()}


def main() -> None:
    """Run what is not there yet, and say which rates ``benchmarks.erase`` should have."""
    rows = run_kept(cases(), measure, KEPT, 2)
    write_rows("rates", rows)
    print(best(rows))


if __name__ == "__main__":
    main()
