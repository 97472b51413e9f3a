"""Run ``erase`` on several GPUs or nodes, as a Kubeflow ``TrainJob`` that writes into the same workdir."""

from __future__ import annotations

from contextlib import nullcontext

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.journal import read_failure
from erasediff.errors import BadInput, ExitCode, IntegrityError
from erasediff.records.core import ErasedRecord
from erasediff.records.trainjob import TrainJobSettings
from erasediff.trainjob import GRACE_MINUTES, TrainJobFailed, TrainJobs, connected, job_name, run_to_end, torchrun_arguments, trainjob


def erase_in_trainjob(attempt: Attempt, settings: TrainJobSettings, made_from: dict[str, str], jobs: TrainJobs | None = None) -> ErasedRecord:
    """Erase in a TrainJob, and read the record that it wrote.

    Args:
        attempt: the attempt; the TrainJob mounts its workdir too.
        settings: the TrainJob's settings, from the profile.
        made_from: the inputs that the record must name.
        jobs: the cluster's TrainJobs; the configured cluster's if unset.

    Raises:
        BadInput: an earlier step is missing, the cluster refuses, or the step in the TrainJob reports a wrong input.
        IntegrityError: the TrainJob succeeded, but its record is missing or has other inputs.
        TrainJobFailed: it failed; the message quotes the step's, if there is one.
    """
    if not attempt.workdir.root.is_relative_to(settings.mount):
        raise BadInput(f"the workdir {attempt.workdir.root} is not on the volume that a TrainJob mounts at {settings.mount}: use a workdir there.")
    name = job_name(attempt.plan().digest())
    arguments = torchrun_arguments("erase", "--workdir", str(attempt.workdir.root), "--run", attempt.name)
    try:
        with connected() if jobs is None else nullcontext(jobs) as found:
            run_to_end(found, trainjob(name, arguments, settings), (settings.minutes + GRACE_MINUTES) * 60)
    except TrainJobFailed as error:
        raise _quoting(attempt, error) from None
    record = attempt.find(ErasedRecord)
    if record is None or record.made_from != made_from:
        raise IntegrityError(f"TrainJob {name} left no record of this erasure in {attempt.folder}: check that its pods mount the same volume.")
    return record


def _quoting(attempt: Attempt, error: TrainJobFailed) -> TrainJobFailed | BadInput:
    """The failure, with the message and the exit code that the step left in the workdir."""
    failure = read_failure(attempt.folder)
    if failure is None:
        return error
    sentence = f"{str(error).rstrip('.')}; the step there says: {failure.message}"
    return BadInput(sentence) if failure.exit_code == ExitCode.BAD_INPUT else TrainJobFailed(sentence)
