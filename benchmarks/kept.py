"""Long benchmarks in parts: finished rows are kept by key, so that a command can be stopped and started again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.results_file import Row, stamped


class Keyed(Protocol):
    """Something to measure; ``key`` says in short what decides its row."""

    @property
    def key(self) -> str:
        """Equal keys mean equal rows."""
        ...


C = TypeVar("C", bound=Keyed)


def finished(path: Path) -> dict[str, Row]:
    """Rows of earlier runs, by key."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {entry["key"]: entry["row"] for entry in map(json.loads, lines)}


def run_kept(cases: Sequence[C], measure: Callable[[C], Row], kept: Path, jobs: int) -> list[Row]:
    """Measure what is not there yet, each case in a process of its own, and return all rows in the order of the cases."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    rows, facts = finished(kept), stamped({})  # of the code that starts, whatever is edited meanwhile
    missing = [case for case in cases if case.key not in rows]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for case, row in zip(missing, pool.map(measure, missing), strict=True):
            rows[case.key] = row = facts | row
            with kept.open("a") as handle:
                handle.write(json.dumps({"key": case.key, "row": row}) + "\n")
            print(json.dumps(row), flush=True)
    return [rows[case.key] for case in cases]
