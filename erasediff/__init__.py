"""EraseDiff: make an image-generating diffusion model forget, and prove it before anything ships.

Nothing here needs Kubeflow. From Python, :mod:`erasediff.python` is all there is to call. Start reading at :mod:`erasediff.steps.table`
(one module per step of the pipeline) and :mod:`erasediff.unlearn.methods.erasediff` (the algorithm).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erasediff.python import erase, examine, judge, load

__version__ = "0.1.0"
__all__ = ["erase", "examine", "judge", "load"]


def __getattr__(name: str) -> Any:
    """Import a call where it is first used: ``import erasediff`` alone imports no library and changes nothing in the process."""
    if name not in __all__:
        raise AttributeError(f"module 'erasediff' has no attribute {name!r}")
    from erasediff.errors import explain_missing_module

    try:
        return getattr(import_module("erasediff.python"), name)
    except ModuleNotFoundError as error:
        raise explain_missing_module(error) or error from None
