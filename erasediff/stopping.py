"""Undo what is half-made when this process is asked to end: Kubernetes sends SIGTERM to a pod that is evicted or whose run is terminated."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from erasediff.errors import EraseDiffError


class Stopped(EraseDiffError):
    """The process got SIGTERM."""


@contextmanager
def raise_on_sigterm(what: str) -> Iterator[None]:
    """Raise an error on SIGTERM, once, so that what was begun is undone; only in the main thread, for only that one gets signals.

    Args:
        what: what was terminated, for the error's sentence.

    Raises:
        Stopped: SIGTERM came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what undoes it must not be interrupted
        raise Stopped(f"{what} was terminated")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
