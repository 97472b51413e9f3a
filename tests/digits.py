"""The classes of the digits, in order."""

from __future__ import annotations

from erasediff.records.core import ErasureRequest
from erasediff.records.positions import positioned_text

DIGITS = tuple(map(str, range(10)))


def handed(*labels: int) -> str:
    """A request for some digits as Kubeflow gets it."""
    return positioned_text([ErasureRequest(dataset="digits", label=str(label)) for label in labels], DIGITS)
