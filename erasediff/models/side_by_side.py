"""Run two computations at once on a CPU: torch releases the GIL while it computes, and one thread leaves a second core idle."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Run two functions that share only read-only data, the first in its own thread, the second in this one; return both results.

    Gradients come from :func:`erasediff.models.gradient.gradient_of`, as threads would share a parameter's ``.grad``. Each function
    computes with as many threads as it would alone, so its result is the same to the last bit.

    Raises:
        Exception: what one of them raised, once both have ended; the first's where both did.
    """
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(first)
        try:
            beside = second()
        except Exception:
            ahead.result()
            raise
        return ahead.result(), beside
