"""Which Kubeflow run works in a workdir, so that a second one is told when it begins.

The steps of a run on Kubeflow are processes of their own, often on several nodes, so no lock lasts from its first step to its last. A file in the
workdir names the run instead, and until when it has the workdir: for some minutes from the last sign of life of a step at work, and for longer
between two steps, since a pod may wait for a node. Runs on this machine hold a lock from beginning to end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

from pydantic import AwareDatetime

from erasediff.attempts.workdir import Workdir
from erasediff.environment import KUBEFLOW_RUN
from erasediff.errors import BadInput, EraseDiffError
from erasediff.files import exclusive_lock
from erasediff.records.base import Strict
from erasediff.records.settings import RunSettings

_BEAT = timedelta(minutes=1)
_SILENT = timedelta(minutes=5)
"""After this time without a sign of life, a step was killed."""


class UnderWay(Strict):
    """A Kubeflow run that works in a workdir.

    Attributes:
        run: the run's id.
        step: its last step that began.
        since: when it took the workdir.
        until: when another run may take it; in the past once it has ended.
    """

    run: str
    step: str
    since: AwareDatetime
    until: AwareDatetime

    def is_live(self) -> bool:
        """Whether the run still has the workdir."""
        return self.until > datetime.now(UTC)


def busy(workdir: Workdir) -> str:
    """The message if a run on this machine is under way."""
    return f"another run is under way in {workdir.root}: wait for its end, or choose another --workdir."


@contextmanager
def held_here(workdir: Workdir) -> Iterator[int]:
    """Hold a workdir for a run on this machine; the lock's descriptor is yielded.

    Raises:
        BadInput: another run is under way in it.
    """
    with exclusive_lock(workdir.root, busy(workdir)) as held:
        if (other := other_run(workdir)) is not None:
            raise BadInput(_told(workdir, other))
        yield held


def other_run(workdir: Workdir) -> UnderWay | None:
    """Another Kubeflow run that has the workdir, if there is one.

    Raises:
        BadInput: the file cannot be read.
    """
    found = _found(workdir)
    return found if found is not None and found.run != _own() and found.is_live() else None


def is_of_another(workdir: Workdir) -> bool:
    """Whether this process belongs to a Kubeflow run that does not have the workdir, because another run has it or had it last."""
    found = _found(workdir)
    return _own() is not None and found is not None and found.run != _own()


def take(workdir: Workdir, step: str) -> None:
    """Take the workdir for the Kubeflow run that this process belongs to; nothing happens outside of Kubeflow.

    Raises:
        BadInput: another run is under way in it; nothing was written.
    """
    own = _own()
    if own is None:
        return
    with held_here(workdir):
        found = _found(workdir)
        since = found.since if found is not None and found.run == own else datetime.now(UTC)
        _write(workdir, UnderWay(run=own, step=step, since=since, until=datetime.now(UTC) + _SILENT))


@contextmanager
def kept(workdir: Workdir, step: str) -> Iterator[None]:
    """Keep the workdir while a step of a Kubeflow run works, and until its next step begins; nothing happens outside of Kubeflow.

    Raises:
        BadInput: another run has taken the workdir, since no step of this one began in time.
    """
    own, found = _own(), _found(workdir)
    if own is None:
        yield
        return
    if found is not None and found.run != own:
        raise BadInput(
            f"run {found.run} took {workdir.root} at {found.since:%H:%M} UTC, when no step of this run had begun for "
            f"{RunSettings.load().pending_minutes:g} minutes: run this again when that one has ended, or set {RunSettings.variables()[0]} higher."
        )
    mine = UnderWay(run=own, step=step, since=found.since if found else datetime.now(UTC), until=datetime.now(UTC) + _SILENT)
    _write(workdir, mine)
    ended = Event()

    def beat() -> None:
        while not ended.wait(_BEAT.total_seconds()):
            with contextlib.suppress(EraseDiffError):  # a full disk: the step itself says so
                _write(workdir, mine.model_copy(update={"until": datetime.now(UTC) + _SILENT}))

    beating = Thread(target=beat, name="erasediff-under-way", daemon=True)
    beating.start()
    lasts = _SILENT  # after a failure only the last step follows, and after SIGTERM none
    try:
        yield
        lasts = timedelta(minutes=RunSettings.load().pending_minutes)
    finally:
        ended.set()
        beating.join()
        with contextlib.suppress(EraseDiffError):
            _write(workdir, mine.model_copy(update={"until": datetime.now(UTC) + lasts}))


def release(workdir: Workdir) -> None:
    """Let other runs have the workdir, if the Kubeflow run that this process belongs to has it."""
    found = _found(workdir)
    if found is not None and found.run == _own():
        _write(workdir, found.model_copy(update={"until": datetime.now(UTC)}))


def told(workdir: Workdir, other: UnderWay) -> str:
    """Which run has the workdir, and for how long."""
    return f"run {other.run} has been under way in {workdir.root} since {other.since:%H:%M} UTC (step {other.step})"


def _told(workdir: Workdir, other: UnderWay) -> str:
    return (
        f"{told(workdir, other)}: wait for its end; if it was terminated, it has the workdir until {other.until:%H:%M} UTC, "
        f"or until you delete {workdir.under_way.name} there."
    )


def _own() -> str | None:
    return os.environ.get(KUBEFLOW_RUN) or None


def _found(workdir: Workdir) -> UnderWay | None:
    return UnderWay.read(workdir.under_way) if workdir.under_way.is_file() else None


def _write(workdir: Workdir, under_way: UnderWay) -> None:
    under_way.write(workdir.under_way)
