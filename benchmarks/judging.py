"""``python -m benchmarks.judging WORKDIR``: how long the evaluation of a demo takes on tier 1, and how much of it is sampling.

WORKDIR is one that ``erasediff demo`` has finished in. Its last attempt is evaluated once more in this process, from the same
records and seeds, and the measurements must come out the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.results_file import Row, write_rows
from erasediff.environment import settle
from erasediff.evaluate import measure
from erasediff.evaluate.attacks import probe
from erasediff.records.measurements import Measurements
from erasediff.records.workdir import Run, Workdir
from erasediff.steps.evaluate import evaluate


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Seconds of every call of the sampler while it is on."""
    taken: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments, **named)
            taken.append(time.perf_counter() - started)
            return result

        return call

    with mock.patch.object(measure, "draw_samples", timed(measure.draw_samples)), mock.patch.object(probe, "draw_samples", timed(probe.draw_samples)):
        yield taken


def judged_again(run: Run) -> Row:
    """One evaluation, timed."""
    before = run.need(Measurements, "evaluate")
    run.path(Measurements).unlink()
    started = time.perf_counter()
    with stopwatch() as sampling:
        after = evaluate(run)
    seconds = time.perf_counter() - started
    assert after.digest() == before.digest(), "the same records and seeds give the same measurements"
    return {"tier": run.policy().tier, "seconds": round(seconds, 1), "sampling_share": round(sum(sampling) / seconds, 3), "draws": len(sampling)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    settle()
    write_rows("judging", [judged_again(Workdir.open(parser.parse_args().workdir).run())])


if __name__ == "__main__":
    main()
