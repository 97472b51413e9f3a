"""Progress of long work as events: to viewers in this process, and to a file for other processes.

An event is ``{"step", "state", "seconds", "of"}`` where a step starts or ends, and ``{"what", "done", "total"}`` inside it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from erasediff.environment import is_main_process

FILE_VARIABLE = "ERASEDIFF_PROGRESS"
LINE_SECONDS = 10.0
"""Without a terminal, long work reports its progress once in this many seconds."""
_INTERVAL_SECONDS = 0.5

Event = dict[str, Any]
_viewers: list[Callable[[Event], None]] = []


@contextmanager
def shown_by(viewer: Callable[[Event], None]) -> Iterator[None]:
    """Send every event of this process to a viewer while the block runs."""
    _viewers.append(viewer)
    try:
        yield
    finally:
        _viewers.remove(viewer)


def announce(step: str, state: str, seconds: float = 0.0, of: str = "") -> None:
    """Announce that a step has ``started``, is ``done`` or has ``failed``; ``of`` names the class if the run has several."""
    _send({"step": step, "state": state, "seconds": round(seconds, 3), "of": of})


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of units done so far.

    The numbers become events if there is a viewer or a file, else a bar on a terminal, else a line every ten seconds on standard error.
    """
    if not is_main_process():
        yield lambda done: None
    elif _viewers or FILE_VARIABLE in os.environ:
        yield at_most_every(_INTERVAL_SECONDS, total, lambda done: _send({"what": what, "done": done, "total": total}))
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield at_most_every(LINE_SECONDS, None, lambda done: print(f"{what}: {done} of {total}", file=sys.stderr, flush=True))


def at_most_every(seconds: float, total: int | None, report: Callable[[int], None]) -> Callable[[int], None]:
    """Limit ``report`` to one call in ``seconds``; the last unit is always reported if ``total`` is given."""
    last = time.monotonic() if total is None else 0.0

    def maybe(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds or done == total:
            last = now
            report(done)

    return maybe


def _send(event: Event) -> None:
    if not is_main_process():
        return
    for viewer in _viewers:
        viewer(event)
    if target := os.environ.get(FILE_VARIABLE):
        with Path(target).open("a") as handle:
            handle.write(json.dumps(event) + "\n")
