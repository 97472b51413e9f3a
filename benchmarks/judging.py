"""``python -m benchmarks.judging WORKDIR``: how long the evaluation of a demo takes on tier 1, and how much of it is sampling.

WORKDIR is one that ``erasediff demo`` has finished in. Its last attempt is evaluated once more in this process, from the same
records and seeds, and the measurements must come out the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from benchmarks.results_file import Row, write_rows
from erasediff.environment import settle
from erasediff.evaluate import measure, sampling
from erasediff.records.measurements import Measurements
from erasediff.records.workdir import Run, Workdir
from erasediff.steps.evaluate import evaluate


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Seconds that were spent waiting for samples, a number for each set, while it is on."""
    taken: list[float] = []
    draw = sampling.draw_batches

    def timed(*arguments: Any, **named: Any) -> Iterator[Tensor]:
        batches, seconds = draw(*arguments, **named), 0.0
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            seconds += time.perf_counter() - started
            if batch is None:
                break
            yield batch
        taken.append(seconds)

    with mock.patch.object(sampling, "draw_batches", timed), mock.patch.object(measure, "draw_batches", timed):
        yield taken


def judged_again(run: Run) -> Row:
    """One evaluation, timed."""
    before = run.need(Measurements, "evaluate")
    run.path(Measurements).unlink()
    started = time.perf_counter()
    with stopwatch() as taken:
        after = evaluate(run)
    seconds = time.perf_counter() - started
    assert after.digest() == before.digest(), "the same records and seeds give the same measurements"
    return {"tier": run.policy().tier, "seconds": round(seconds, 1), "sampling_share": round(sum(taken) / seconds, 3), "draws": len(taken)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    settle()
    write_rows("judging", [judged_again(Workdir.open(parser.parse_args().workdir).run())])


if __name__ == "__main__":
    main()
