"""Progress of long work as events: to viewers in this process, and to a file for other processes.

An event is ``{"step", "state", "seconds", "of", "attempt"}`` where a step starts or ends, with ``{"result", "digest"}`` where it is done;
``{"what", "done", "total"}`` inside it, with ``{"images"}`` for how many images one unit is and ``{"numbers"}`` such as losses; and ``{"said"}``
for a sentence.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from erasediff.environment import is_main_process

FILE_VARIABLE = "ERASEDIFF_PROGRESS"
_INTERVAL_SECONDS = 0.5

Event = dict[str, Any]
_viewers: list[Callable[[Event], None]] = []


class ReportProgress(Protocol):
    """Takes the number of units done so far, and numbers by name that are known now."""

    def __call__(self, done: int, /, **numbers: float) -> None:
        """Report."""
        ...


@contextmanager
def shown_by(viewer: Callable[[Event], None]) -> Iterator[None]:
    """Send every event of this process to a viewer while the block runs."""
    _viewers.append(viewer)
    try:
        yield
    finally:
        _viewers.remove(viewer)


def announce(step: str, state: str, seconds: float = 0.0, of: str = "", attempt: str = "", **came_out: str) -> None:
    """Announce that a step has ``started``, is ``done`` or has ``failed``.

    Args:
        step: its name.
        state: see above.
        seconds: how long it took.
        of: the class.
        attempt: the attempt's name, if there is one.
        came_out: ``result`` and ``digest`` of a step that is done.
    """
    _send({"step": step, "state": state, "seconds": round(seconds, 3), "of": of, "attempt": attempt, **came_out})


def say(sentence: str) -> None:
    """Tell whoever watches this run a sentence; on standard error where nobody does."""
    if not _viewers and is_main_process():
        print(sentence, file=sys.stderr, flush=True)
    _send({"said": sentence})


@contextmanager
def progress(what: str, total: int, images: int | None = None) -> Iterator[ReportProgress]:
    """Yield what takes the number of units done so far; the numbers become events, at most two in a second.

    Args:
        what: the name of the work.
        total: units of the whole; 1 for work that cannot be counted.
        images: how many images one unit is, where images are sampled or trained on.
    """
    event: Event = {"what": what, "done": 0, "total": total} | ({} if images is None else {"images": images})
    last, sent = 0.0, 0
    _send(event)

    def report(done: int, /, **numbers: float) -> None:
        nonlocal last, sent
        now = time.monotonic()
        event["done"] = done
        if now - last >= _INTERVAL_SECONDS or done == total:
            last, sent = now, done
            _send(event | ({"numbers": numbers} if numbers else {}))

    yield report
    if sent != total:  # it ended early, or nobody counted
        _send(event | {"total": event["done"]})


def _send(event: Event) -> None:
    if not is_main_process():
        return
    for viewer in _viewers:
        viewer(event)
    if target := os.environ.get(FILE_VARIABLE):
        with Path(target).open("a") as handle:
            handle.write(json.dumps(event) + "\n")
