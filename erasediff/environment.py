"""What the environment says of this process: whom its libraries tell, its thread counts, its allocator, and whether it is the one that writes.

Thread counts of the numeric libraries are set before they are imported.

OpenMP's spinning makes two threads slower than one beside any other load, and sums in another order differ in their
last bits: one thread is both faster here and what makes a run repeat bit for bit. Work that can go side by side does so
in batches. What the environment already says is respected.
"""

from __future__ import annotations

import ctypes
import os
import sys

TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "true",
}
"""onnxruntime, MLflow, Hugging Face's hub and DVC tell their makers of their use, unless the environment says this before they are imported."""

THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_KEPT_BYTES, _LARGEST_IN_HEAP = 2**31 - 1, 2**25  # the largest int, and the largest threshold that glibc takes
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(_LARGEST_IN_HEAP)}
"""glibc gives freed memory back at once and has every page zeroed again at the next step: 6 to 7 % of a small model's step."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def disable_telemetry() -> None:
    """Turn off what libraries send to their makers, here and in children, where the environment does not say otherwise."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def is_main_process() -> bool:
    """Whether this process writes and reports: the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def configure_process() -> None:
    """Set thread counts and allocator of this process and its children, where the environment does not say otherwise."""
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    if not ALLOCATOR.keys() & os.environ.keys():
        os.environ |= ALLOCATOR  # read when a process starts: for the children
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees; where the C library is not glibc, nothing happens."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_IN_HEAP)
