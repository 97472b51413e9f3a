"""Run steps: for the runner in this process, for a component on Kubeflow, and for a single command.

A step whose record is up to date does nothing. Otherwise it locks its attempt, does its work, is timed, and then updates the attempt's requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

from erasediff.attempts.attempt import Attempt, kind_name
from erasediff.attempts.batch import batch_of, lead_of, others_of, requests_in
from erasediff.attempts.journal import FAILURE, journaled, read_failure, record_kubeflow_run, record_seconds
from erasediff.attempts.workdir import Workdir
from erasediff.environment import is_main_process
from erasediff.errors import EraseDiffError
from erasediff.files import exclusive_lock
from erasediff.progress import say
from erasediff.records.base import Record
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, Outcome, Verdict, verdict_in
from erasediff.records.policy import GatePolicy
from erasediff.records.positions import told
from erasediff.records.requests import Reason
from erasediff.records.sizes import TrainingSize
from erasediff.records.trainjob import TrainJobSettings
from erasediff.retries import retried
from erasediff.steps.headline import headline_of, outcome_in_words
from erasediff.steps.request_lifecycle import move_requests, send_back, take_requests, unanswered_in_words
from erasediff.steps.table import Role, Step, step_for


def input_digests(row: Step, attempt: Attempt) -> dict[str, str]:
    """The digests of a step's inputs.

    Raises:
        BadInput: an earlier step is missing.
    """
    digests = {kind_name(kind): attempt.digest_of(kind) for kind in row.inputs}
    if (kind := row.inputs_of_others) is not None:
        digests |= {f"{kind_name(kind)}.{other.name}": other.digest_of(kind) for other in others_of(attempt)}
    return digests


def finished_record(row: Step, attempt: Attempt) -> Record | None:
    """The record of a step if it is up to date, or ``None``.

    Raises:
        BadInput: an earlier step is missing, or a record cannot be read.
    """
    if row.makes is None or not row.inputs:
        return None
    present = attempt.find(row.makes)
    return present if present is not None and present.made_from == input_digests(row, attempt) else None


def perform(row: Step, attempt: Attempt, size: TrainingSize | None = None) -> Record:
    """Run a step for one attempt.

    Args:
        row: the step.
        attempt: the attempt.
        size: of each node, where the profile may run the step on nodes of its own.

    Raises:
        EraseDiffError: the step's error; the message is in the attempt's folder too.
        BadInput: another process has locked the attempt; nothing was written.
    """
    plan = attempt.plan()
    of = told([plan.position], plan.request.dataset)
    trainjob = TrainJobSettings.from_environment(size) if size is not None and row.distributed and attempt == lead_of(attempt) else None
    busy = f"a step of run {attempt.name} is under way in another process: wait for its end and run the same command again."
    started = time.monotonic()
    # A TrainJob locks the attempt itself, in its own process.
    with (
        nullcontext() if trainjob is not None else exclusive_lock(attempt.folder, busy),
        journaled(row.name, attempt.folder, of, attempt.name) as came_out,
    ):
        found = finished_record(row, attempt)
        record = found or (_run_here(row, attempt) if trainjob is None else _run_in_trainjob(row, attempt, trainjob))
        for name in row.scratch_files:
            (attempt.folder / name).unlink(missing_ok=True)
        retried(lambda: move_requests(attempt, row))  # a move that was made is found
        if found is None:
            record_seconds(attempt, row.name, time.monotonic() - started)
        words = headline_of(record, attempt.workdir).words
        came_out.result, came_out.digest = words if found is None else f"recorded before, {words}", record.digest()
    return record


def _run_here(row: Step, attempt: Attempt) -> Record:
    record: Record = row.function(attempt)
    if row.inputs:
        record = record.model_copy(update={"made_from": input_digests(row, attempt)})
        record.write(attempt.path(type(record)))
    return record


def _run_in_trainjob(row: Step, attempt: Attempt, settings: TrainJobSettings) -> Record:
    from erasediff.steps.erase_in_trainjob import erase_in_trainjob  # imports the Kubernetes client

    return erase_in_trainjob(attempt, settings, input_digests(row, attempt))


def perform_batch(row: Step, attempt: Attempt, size: TrainingSize | None = None) -> tuple[Record, ...]:
    """Run a step for every attempt of a batch.

    A step that answers requests fails only if it fails for all of them.

    Args:
        row: the step.
        attempt: one of the batch.
        size: see :func:`perform`.

    Returns:
        The records of the attempts that succeeded, the lead's first.

    Raises:
        EraseDiffError: the step's error.
    """
    lead = lead_of(attempt)
    if not is_main_process():  # under torchrun only rank 0 writes records
        if finished_record(row, lead) is None:
            row.function(lead)
        return ()
    if row.role is Role.ANSWERS:
        return _perform_each(row, batch_of(attempt))
    records = {one: perform(row, one, size) for one in batch_of(attempt)}
    if row.role is Role.DECIDES:
        send_back_passed(records)
    return tuple(records.values())


def send_back_passed(decisions: Mapping[Attempt, Record]) -> None:
    """If a batch did not pass as a whole, send back the requests of the attempts that did: only a model that passed every check is released."""
    if not all_passed(decisions.values()):
        for attempt, record in decisions.items():
            if all_passed((record,)):
                send_back(attempt, Reason.BATCH_REFUSED)


def _perform_each(row: Step, batch: Sequence[Attempt]) -> tuple[Record, ...]:
    records, failures = [], []
    for one in batch:
        try:
            records.append(perform(row, one))
        except EraseDiffError as error:
            say(f"erasediff {row.command}: class at position {one.plan().position}: {error}")
            failures.append(error)
    if not records:
        raise failures[0]
    return tuple(records)


def all_passed(records: Iterable[Record]) -> bool:
    """Whether every decision is PASS."""
    return all(verdict_in(record) is Verdict.PASS for record in records)


def open_attempt(workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy, name: str | None = None) -> Attempt:
    """Open an attempt, or resume a killed one, take its requests from the ledger, and say which it leaves.

    Raises:
        EraseDiffError: what is wrong; the message is in the workdir too.
    """
    row = step_for(Role.OPENS)
    (workdir.root / FAILURE).unlink(missing_ok=True)
    started = time.monotonic()
    with journaled(row.name, workdir.root, f"{len(requests)} of the classes of {requests[0].dataset}") as came_out:
        attempt: Attempt = row.function(workdir, requests, config, policy, name)
        for one in batch_of(attempt):
            retried(partial(take_requests, one))  # one that was taken is found
        if sentence := retried(partial(unanswered_in_words, attempt)):
            say(sentence)
        came_out.result, came_out.digest = f"attempt {attempt.name}", attempt.plan().digest()
    for one in batch_of(attempt):
        (one.folder / FAILURE).unlink(missing_ok=True)
        record_seconds(one, row.name, time.monotonic() - started)
        record_kubeflow_run(one)
    return attempt


def close_attempt(workdir: Workdir, attempt: Attempt | None, requests: Sequence[ErasureRequest]) -> Outcome:
    """Record the outcome of an attempt, or that no attempt could be opened.

    Raises:
        EraseDiffError: the outcome or the report cannot be written.
    """
    row = step_for(Role.CLOSES)
    folder, name, of = (workdir.root, "", "") if attempt is None else (attempt.folder, attempt.name, _told(attempt))
    with journaled(row.name, folder, of, name) as came_out:
        outcome: Outcome = row.function(workdir, attempt, requests)
        came_out.result = outcome_in_words(outcome)
    return outcome


def _told(attempt: Attempt) -> str:
    """The classes of a batch, without their names: logs are kept by others."""
    return told([one.plan().position for one in batch_of(attempt)], attempt.plan().request.dataset)


def current_attempt_for(workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy) -> Attempt | None:
    """The attempt that was opened last, if it has these documents. Kubeflow's exit handler needs it: it sees no other task's output."""
    if read_failure(workdir.root) is not None or not workdir.current.is_file():
        return None
    attempt = workdir.attempt()
    plan = attempt.plan()
    same = (set(requests_in(attempt)), plan.config_digest, plan.policy_digest) == (set(requests), config.digest(), policy.digest())
    return attempt if same else None
