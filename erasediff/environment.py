"""What the environment says of this process: its thread counts, and whether it is the one that writes.

Thread counts of the numeric libraries are set before they are imported.

OpenMP's spinning makes two threads slower than one beside any other load, and sums in another order differ in their
last bits: one thread is both faster here and what makes a run repeat bit for bit. Work that can go side by side does so
in batches. What the environment already says is respected.
"""

from __future__ import annotations

import os

THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def is_main_process() -> bool:
    """Whether this process writes and reports: the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def pin_threads() -> None:
    """Set the thread counts of this process and its children, where the environment does not say otherwise."""
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
