"""``python -m benchmarks.targets``: every forget target on every label of digits at seed 0, the rest of the settings alike."""

from __future__ import annotations

import argparse

from benchmarks.erase import KEPT, Case, measure
from benchmarks.kept import run_kept
from benchmarks.results_file import write_rows
from benchmarks.subjects import subject

# visited_share 0: only noised forget images are relabelled, as in the paper.
VARIANTS: dict[str, dict[str, object]] = {
    "relabel": {"target": "relabel", "visited_share": 0.0},
    "relabel, current": {"target": "relabel", "visited_share": 0.0, "teacher": "current"},
    "anchor": {"target": "anchor", "visited_share": 0.0},
    "noise": {"target": "noise", "visited_share": 0.0},
    "mixture, no repulsion": {"target": "mixture", "repulsion": 0.0},
    "mixture, drawn": {"target": "mixture", "mixture_estimate": "drawn"},
    "mixture, drawn, current": {"target": "mixture", "mixture_estimate": "drawn", "teacher": "current"},
    "mixture": {"target": "mixture"},
}


def main() -> None:
    """Measure every target on every label; rows that are there already are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    jobs = parser.parse_args().jobs
    named = [(name, Case(subject("digits"), "erasediff", label, 0, tuple(VARIANTS[name].items()))) for name in VARIANTS for label in range(10)]
    rows = run_kept([case for _, case in named], measure, KEPT, jobs)
    write_rows("targets", [{**row, "target": name} for (name, _), row in zip(named, rows, strict=True)])


if __name__ == "__main__":
    main()
