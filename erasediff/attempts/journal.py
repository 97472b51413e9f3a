"""What a step leaves behind about itself: how long it took, or why it failed."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from erasediff.attempts.attempt import Attempt
from erasediff.errors import EraseDiffError, explain_missing_module, explain_os_error
from erasediff.files import write_atomic
from erasediff.progress import announce
from erasediff.records.nouns import Failure

FAILURE = "failure.json"


@contextmanager
def journaled(step: str, folder: Path, of: str = "") -> Iterator[None]:
    """Announce a step, and write why it failed into a folder; a step that ends well removes its own failure from there.

    Args:
        step: its name.
        folder: the attempt's; the workdir's root, before there is an attempt.
        of: which class it is about, where a run has several.

    Raises:
        EraseDiffError: what the step raised; anything else as one sentence, with the traceback in a file of the folder.
    """
    announce(step, "started", of=of)
    try:
        yield
    except Exception as error:
        told = _as_sentence(step, folder, error)
        with contextlib.suppress(EraseDiffError):  # a full disk cannot take the sentence either; it still goes to the terminal
            Failure(step=step, message=str(told), exit_code=int(told.exit_code)).write(folder / FAILURE)
        announce(step, "failed", of=of)
        if told is error:
            raise
        raise told from error
    failure = read_failure(folder)
    if failure is not None and failure.step == step:
        (folder / FAILURE).unlink()


def _as_sentence(step: str, folder: Path, error: Exception) -> EraseDiffError:
    """The error as a sentence for the person at the terminal."""
    if isinstance(error, EraseDiffError):
        return error
    known = explain_missing_module(error) if isinstance(error, ModuleNotFoundError) else None
    known = explain_os_error(error, folder) if isinstance(error, OSError) else known
    if known is not None:
        return known
    log = folder / f"{step}.traceback.log"
    with contextlib.suppress(EraseDiffError):
        write_atomic(log, "".join(traceback.format_exception(error)).encode())
    return EraseDiffError(f"step {step} failed unexpectedly ({type(error).__name__}): the traceback is in {log}.")


def record_seconds(attempt: Attempt, step: str, seconds: float) -> None:
    """Write how long a step took that had work to do."""
    write_atomic(attempt.folder / "seconds.json", json.dumps({**read_seconds(attempt), step: round(seconds, 3)}, sort_keys=True).encode())


def read_seconds(attempt: Attempt) -> dict[str, float]:
    """Seconds of every step of an attempt that ended well."""
    path = attempt.folder / "seconds.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def read_failure(folder: Path) -> Failure | None:
    """Why the last step in this folder failed, if it did."""
    path = folder / FAILURE
    return Failure.read(path) if path.is_file() else None
