"""``python -m benchmarks.judging WORKDIR``: how long the evaluation of the default run takes on tier 1, and how much of it is sampling.

WORKDIR is an empty place, in which the steps before the evaluation are run as commands; the evaluation is then timed in this
process. A demo that has ended is of no use for it: the purge has deleted the base.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from benchmarks.demo import COMMAND
from benchmarks.results_file import Row, write_rows
from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.environment import configure_process
from erasediff.evaluate import measure, sampling
from erasediff.steps.perform import perform
from erasediff.steps.table import step_named


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Seconds that were spent waiting for samples, a number for each set, while it is on."""
    taken: list[float] = []
    draw = sampling.draw_batches

    def drawn(*arguments: Any, **named: Any) -> Iterator[Tensor]:
        batches, seconds = draw(*arguments, **named), 0.0
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            seconds += time.perf_counter() - started
            if batch is None:
                break
            yield batch
        taken.append(seconds)

    with mock.patch.object(sampling, "draw_batches", drawn), mock.patch.object(measure, "draw_batches", drawn):
        yield taken


def ready_to_evaluate(workdir: Path) -> Attempt:
    """An attempt whose model is erased and not evaluated."""
    subprocess.run([COMMAND, "check-prerequisites", "--forget-label", "0", "--workdir", workdir], check=True)
    run = Workdir.open(workdir).attempt()
    for command in ("train-base", "version-forget-set", "erase"):
        subprocess.run([COMMAND, command, "--workdir", workdir, "--run", run.name], check=True)
    return run


def timed(run: Attempt) -> Row:
    """One evaluation, timed."""
    started = time.perf_counter()
    with stopwatch() as taken:
        perform(step_named("evaluate"), run)
    seconds = time.perf_counter() - started
    return {"tier": run.policy().tier, "seconds": round(seconds, 1), "sampling_share": round(sum(taken) / seconds, 3), "draws": len(taken)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    workdir = parser.parse_args().workdir
    if workdir.exists():
        raise SystemExit(f"{workdir} exists: name an empty place, for an evaluation that is there would not be made again.")
    configure_process()
    write_rows("judging", [timed(ready_to_evaluate(workdir))])


if __name__ == "__main__":
    main()
