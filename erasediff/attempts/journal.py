"""The journal of an attempt: how long each step took, why the last one failed, and which runs of Kubeflow worked on it."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.environment import KUBEFLOW_RUN
from erasediff.errors import EraseDiffError, explain_missing_module, explain_os_error
from erasediff.files import write_atomic
from erasediff.progress import announce
from erasediff.records.core import Failure

FAILURE = "failure.json"
_KUBEFLOW_RUNS = "kubeflow-runs.json"


@dataclass
class CameOut:
    """What came of a step, in a few words, and the digest of its record; the step fills it."""

    result: str = ""
    digest: str = ""


@contextmanager
def journaled(step: str, folder: Path, of: str = "", attempt: str = "") -> Iterator[CameOut]:
    """Announce a step's start and end, and record its failure: arguments and errors are those of :func:`failure_recorded`.

    Yields:
        What the step fills with what came of it.
    """
    started, came_out = time.monotonic(), CameOut()
    announce(step, "started", of=of, attempt=attempt)
    with failure_recorded(step, folder, of, attempt):
        yield came_out
    announce(step, "done", time.monotonic() - started, of, attempt, result=came_out.result, digest=came_out.digest)


@contextmanager
def failure_recorded(step: str, folder: Path, of: str = "", attempt: str = "") -> Iterator[None]:
    """Announce a step's failure and record it in a folder; a step that succeeds removes its own failure.

    Args:
        step: the step's name.
        folder: the attempt's folder; the workdir's root before there is an attempt.
        of: the class.
        attempt: the attempt's name, if there is one.

    Raises:
        EraseDiffError: the step's error; an unexpected error becomes one sentence, and its traceback goes to a file in the folder.
    """
    started = time.monotonic()
    try:
        yield
    except Exception as error:
        explained = _as_sentence(step, folder, error)
        with contextlib.suppress(EraseDiffError):  # a full disk cannot take the message; the terminal still gets it
            Failure(step=step, message=str(explained), exit_code=int(explained.exit_code)).write(folder / FAILURE)
        announce(step, "failed", time.monotonic() - started, of, attempt)
        if explained is error:
            raise
        raise explained from error
    failure = read_failure(folder)
    if failure is not None and failure.step == step:
        (folder / FAILURE).unlink()


def _as_sentence(step: str, folder: Path, error: Exception) -> EraseDiffError:
    """The error as a sentence for the user."""
    if isinstance(error, EraseDiffError):
        return error
    known = explain_missing_module(error) if isinstance(error, ModuleNotFoundError) else explain_os_error(error, folder)
    if known is not None:
        return known
    log = folder / f"{step}.traceback.log"
    with contextlib.suppress(EraseDiffError):
        write_atomic(log, "".join(traceback.format_exception(error)).encode())
    return EraseDiffError(f"step {step} failed unexpectedly ({type(error).__name__}): the traceback is in {log}.")


def record_seconds(attempt: Attempt, step: str, seconds: float) -> None:
    """Record how long a step took."""
    write_atomic(attempt.folder / "seconds.json", json.dumps({**read_seconds(attempt), step: round(seconds, 3)}, sort_keys=True).encode())


def read_seconds(attempt: Attempt) -> dict[str, float]:
    """The seconds of every step that succeeded."""
    path = attempt.folder / "seconds.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def record_kubeflow_run(attempt: Attempt) -> None:
    """Record the id of the Kubeflow run that works on an attempt, if there is one: its parameters and logs outlive every purge."""
    run = os.environ.get(KUBEFLOW_RUN)
    if run and run not in (runs := read_kubeflow_runs(attempt)):
        write_atomic(attempt.folder / _KUBEFLOW_RUNS, json.dumps([*runs, run]).encode())


def read_kubeflow_runs(attempt: Attempt) -> list[str]:
    """The ids of the Kubeflow runs that worked on an attempt, in their order."""
    path = attempt.folder / _KUBEFLOW_RUNS
    return json.loads(path.read_bytes()) if path.is_file() else []


def opened_no_attempt(workdir: Workdir) -> bool:
    """Whether this run of Kubeflow has no attempt in the workdir; false outside Kubeflow, where runs have no names.

    Where the workdir may not be read, no step of the run could write there.
    """
    run = os.environ.get(KUBEFLOW_RUN)
    if not run:
        return False
    with contextlib.suppress(PermissionError):
        return all(run not in read_kubeflow_runs(attempt) for attempt in workdir.attempts())
    return True


def read_failure(folder: Path) -> Failure | None:
    """The failure that is recorded in a folder, if any."""
    path = folder / FAILURE
    return Failure.read(path) if path.is_file() else None
