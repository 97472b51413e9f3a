"""Progress of long work: a bar on a terminal, and lines of JSON in a file for whoever watches a run from outside."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from erasediff.environment import is_main_process

FILE_VARIABLE = "ERASEDIFF_PROGRESS"
_INTERVAL_SECONDS = 0.5


def _append(path: Path, event: dict[str, object]) -> None:
    with path.open("a") as handle:
        handle.write(json.dumps(event) + "\n")


def _file_reporter(path: Path, what: str, total: int) -> Callable[[int], None]:
    last = 0.0

    def report(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= _INTERVAL_SECONDS:
            last = now
            _append(path, {"what": what, "done": done, "total": total})

    return report


def announce(step: str, state: str, seconds: float, of: str = "") -> None:
    """Tell whoever watches that a step has ``started``, is ``done`` or has ``failed``, and ``of`` which class where a run has several."""
    if (target := os.environ.get(FILE_VARIABLE)) and is_main_process():
        _append(Path(target), {"step": step, "state": state, "seconds": seconds, "of": of})


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of units done so far.

    With ``ERASEDIFF_PROGRESS`` set, events go to that file; else to a bar if standard error is a terminal; else nowhere.
    """
    if not is_main_process():
        yield lambda done: None
    elif target := os.environ.get(FILE_VARIABLE):
        yield _file_reporter(Path(target), what, total)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield lambda done: None
