"""Show the progress of a run: bars on a terminal, else lines for a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from erasediff.files import explain_disk_errors
from erasediff.progress import LINE_SECONDS, Event, at_most_every
from erasediff.steps.table import step_named

if TYPE_CHECKING:
    from rich.progress import TaskID


def _title(event: Event) -> str:
    title = step_named(event["step"]).title
    return f"{title}, {event['of']}" if event["of"] else title


class Lines:
    """One line for each step that ended, and one every ten seconds for long work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._work: dict[str, Callable[[int], None]] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if "step" in event:
            self._work.clear()
            if event["state"] != "started":
                self._say(f"{_title(event):<34} {event['state']:>7} {event['seconds']:8.1f} s")
            return
        what, total = event["what"], event["total"]
        if what not in self._work:
            self._work[what] = at_most_every(LINE_SECONDS, None, lambda done: self._say(f"  {what}: {done} of {total}"))
        self._work[what](event["done"])

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Bars:
    """One bar for each step, and a moving one for the work inside it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=Console(file=stream))
        self._bars: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if "step" not in event:
            bar = self._bar(f"  {event['what']}", event["total"])
            self.progress.update(bar, completed=event["done"], total=event["total"])
            return
        title = _title(event)
        if event["state"] == "started":
            self._bars.pop(title, None)  # a step that runs twice has two bars
        bar = self._bar(f"[bold]{title}", 1, title)
        if event["state"] != "started":
            failed = "" if event["state"] == "done" else " [red]failed"
            self.progress.update(bar, completed=0 if failed else 1, description=f"[bold]{title}{failed}")
            self.progress.stop_task(bar)

    def _bar(self, description: str, total: int, key: str | None = None) -> TaskID:
        key = key or description
        if key not in self._bars:
            self._bars[key] = self.progress.add_task(description, total=total)
        return self._bars[key]


@contextmanager
def display(stream: TextIO) -> Iterator[Callable[[Event], None]]:
    """Yield what shows events on a stream: bars on a terminal, else lines."""
    if not stream.isatty():
        yield Lines(stream)
        return
    bars = Bars(stream)
    with bars.progress:
        yield bars


@contextmanager
def output_into(log: Path) -> Iterator[TextIO]:
    """Redirect the output of this process and its libraries to a file while the block runs; yields the original standard output.

    Libraries in C bypass ``sys.stdout``, so the file descriptors themselves are redirected.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with explain_disk_errors(log), log.open("ab") as target:
        try:
            for descriptor in (1, 2):
                os.dup2(target.fileno(), descriptor)
            with os.fdopen(os.dup(kept[0]), "w") as terminal:
                yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, before in zip((1, 2), kept, strict=True):
                os.dup2(before, descriptor)
                os.close(before)
