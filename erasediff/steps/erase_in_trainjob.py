"""Run ``erase`` on several GPUs or nodes: as a Kubeflow ``TrainJob`` that writes its record into the same workdir."""

from __future__ import annotations

import os
from contextlib import nullcontext

from erasediff.errors import BadInput, ExitCode, IntegrityError
from erasediff.records.nouns import ErasedRecord
from erasediff.records.trainjob import TrainJobSettings
from erasediff.records.workdir import Run
from erasediff.steps.decided import erased_of
from erasediff.steps.journal import read_failure
from erasediff.trainjob import GRACE_MINUTES, TrainJobFailed, TrainJobs, connected, job_name, run_to_end, trainjob

SETTINGS_VARIABLE = "ERASEDIFF_TRAINJOB"


def trainjob_settings() -> TrainJobSettings | None:
    """What the profile says of a TrainJob; ``None`` where the step runs in its own process.

    Raises:
        BadInput: the variable holds something else.
    """
    text = os.environ.get(SETTINGS_VARIABLE)
    return None if text is None else TrainJobSettings.parse_json(text, f"the variable {SETTINGS_VARIABLE}")


def erase_in_trainjob(run: Run, settings: TrainJobSettings, jobs: TrainJobs | None = None) -> ErasedRecord:
    """Erase elsewhere, and read the record that was written there.

    Raises:
        BadInput: an earlier step is missing, the cluster refuses, or the step there says that something handed in is wrong.
        IntegrityError: the TrainJob ended well, yet its record is missing or of something else.
        TrainJobFailed: it failed; the sentence quotes the one of the step, if it left one.
    """
    made_from = erased_of(run)
    present = run.find(ErasedRecord)
    if present is not None and present.made_from == made_from:
        return present
    if not run.workdir.root.is_relative_to(settings.mount):
        raise BadInput(f"the workdir {run.workdir.root} is not on the volume that a TrainJob mounts at {settings.mount}: run with a workdir in it.")
    name = job_name(run.plan().digest())
    command = ["-m", "erasediff", "erase", "--workdir", str(run.workdir.root), "--run", run.name]
    try:
        with connected() if jobs is None else nullcontext(jobs) as found:
            run_to_end(found, trainjob(name, command, settings), (settings.minutes + GRACE_MINUTES) * 60)
    except TrainJobFailed as error:
        raise _quoting(run, error) from None
    record = run.find(ErasedRecord)
    if record is None or record.made_from != made_from:
        raise IntegrityError(f"TrainJob {name} ended well but left no record of this erasure in {run.folder}: do its pods mount the same volume?")
    return record


def _quoting(run: Run, error: TrainJobFailed) -> TrainJobFailed | BadInput:
    """The failure with the sentence that the step left in the workdir, and with its exit code."""
    failure = read_failure(run.folder)
    if failure is None:
        return error
    sentence = f"{str(error).rstrip('.')}; the step there says: {failure.message}"
    return BadInput(sentence) if failure.exit_code == ExitCode.BAD_INPUT else TrainJobFailed(sentence)
