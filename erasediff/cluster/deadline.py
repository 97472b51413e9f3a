"""How long a roll-out may still take, and whether it may continue."""

from __future__ import annotations

import time
from collections.abc import Callable

from erasediff.errors import EraseDiffError


class TimeUp(EraseDiffError):
    """The time for a roll-out is over."""


class Deadline:
    """A moment on the monotonic clock. ``may_go_on`` raises for another reason to stop, such as a lost lease."""

    def __init__(self, seconds: float, may_go_on: Callable[[], None] = lambda: None) -> None:
        """Start the clock."""
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._may_go_on = may_go_on

    def left(self) -> float:
        """Seconds until it is over, at least zero."""
        return max(0.0, self._end - time.monotonic())

    def check(self, what: str) -> None:
        """Raise if there is a reason to stop.

        Raises:
            TimeUp: the time is over; the sentence says what did not happen in time.
        """
        self._may_go_on()
        if not self.left():
            raise TimeUp(f"{what} within {self._seconds:.0f} s")

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the time left."""
        time.sleep(min(seconds, self.left()))
