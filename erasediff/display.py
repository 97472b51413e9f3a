"""Show the progress of a run: bars on a terminal, else lines for a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from erasediff.files import explain_disk_errors
from erasediff.logs import lines_to, title_of
from erasediff.progress import Event

if TYPE_CHECKING:
    from rich.progress import TaskID


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
        if "said" in event:
            self.progress.console.print(event["said"], markup=False, highlight=False)
            return
        if "step" not in event:
            bar = self._bar(f"  {event['what']}", event["total"])
            self.progress.update(bar, completed=event["done"], total=event["total"])
            return
        title = title_of(event)
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
        with lines_to(stream) as lines:
            yield lines
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
