"""Set up this process through the environment: telemetry, thread counts and the allocator. Variables that are already set win.

Thread counts must be set before the numeric libraries are imported. One thread is faster here: OpenMP's spinning makes two threads slower than
one beside any other load. It also makes runs repeat bit for bit, since sums in another order differ in their last bits. Work that can run in
parallel does so in batches.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "true",
}
"""Turns off the telemetry of onnxruntime, MLflow, Hugging Face's hub and DVC, if set before they are imported."""

THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

TERMINATION_LOG, _TERMINATION_BYTES = Path("/dev/termination-log"), 4096
"""What Kubernetes shows as the reason of a container's end, and how much of it."""

KUBEFLOW_RUN = "ERASEDIFF_KUBEFLOW_RUN"
"""The variable with the id of the run on Kubeflow Pipelines; a compiled task takes it from its pod's label."""

_UMASK = 0o007
"""The steps share a workdir as one group."""

_KEPT_BYTES, _LARGEST_IN_HEAP = 2**31 - 1, 2**25  # the largest int, and the largest threshold that glibc takes
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(_LARGEST_IN_HEAP)}
"""By default glibc returns freed memory at once, and the kernel zeroes every page again at the next step: 6 to 7 % of a small model's step."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def disable_telemetry() -> None:
    """Turn off the telemetry of libraries in this process and its children, unless the environment says otherwise."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def is_main_process() -> bool:
    """Whether this process writes and reports: rank 0 under torchrun, or the only process."""
    return os.environ.get("RANK", "0") == "0"


def in_pod() -> bool:
    """Whether this process runs in a pod of Kubernetes."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def leave_termination_message(sentence: str) -> None:
    """In a pod, leave why this process ends as the container's termination message."""
    if TERMINATION_LOG.is_file():  # the kubelet mounts it into every container
        with contextlib.suppress(OSError):
            TERMINATION_LOG.write_bytes(sentence.encode()[:_TERMINATION_BYTES])


def close_umask() -> None:
    """In a pod, open the files of this process to its group and close them to others, whatever umask it was started with.

    Kubeflow's launcher starts a step with 0, a container runtime a process of a TrainJob with 022. Elsewhere the umask is the user's.
    """
    if in_pod():
        os.umask(_UMASK)


def configure_process() -> None:
    """Set thread counts and the allocator of this process and its children, unless the environment says otherwise."""
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    if not ALLOCATOR.keys() & os.environ.keys():
        os.environ |= ALLOCATOR  # read when a process starts: for the children
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees; does nothing without glibc."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_IN_HEAP)
