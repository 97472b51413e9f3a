"""Run the table of steps in this process, from a request to its outcome."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of
from erasediff.attempts.under_way import held_here
from erasediff.attempts.workdir import Workdir
from erasediff.errors import EraseDiffError, ExitCode
from erasediff.files import explain_disk_errors
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, Outcome, Verdict
from erasediff.records.policy import GatePolicy
from erasediff.steps.perform import all_passed, close_attempt, open_attempt, perform_batch
from erasediff.steps.request_lifecycle import answered_requests
from erasediff.steps.table import Role, work_steps


def run(workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy) -> Outcome:
    """Run every step, for one request or for a batch; a killed run continues where it stopped.

    Returns:
        The outcome of the first request, as in ``outcome.json``; it names a step that failed.

    Raises:
        BadInput: another run is under way in this workdir, or nothing can be written there.
        EraseDiffError: the run succeeded, and its outcome or report cannot be stored.
    """
    with explain_disk_errors(workdir.root), held_here(workdir):
        workdir.outcome.unlink(missing_ok=True)
        attempt: Attempt | None = None
        try:
            attempt = open_attempt(workdir, requests, config, policy)
            for row in work_steps():
                if row.role is Role.ANSWERS and not any(answered_requests(one) for one in batch_of(attempt)):
                    break
                records = perform_batch(row, attempt)
                if row.role is Role.DECIDES and not all_passed(records):
                    break
        except EraseDiffError as error:
            print(error, file=sys.stderr)  # for the log; the outcome finds the sentence in the journal
        return _close(workdir, attempt, requests)


def _close(workdir: Workdir, attempt: Attempt | None, requests: Sequence[ErasureRequest]) -> Outcome:
    """Record the outcome; where the run did not succeed, its outcome counts and not that the report could not be drawn or stored as well."""
    try:
        return close_attempt(workdir, attempt, requests)
    except EraseDiffError as error:
        if not workdir.outcome.is_file() or exit_code(outcome := Outcome.read(workdir.outcome)) is ExitCode.OK:
            raise
        print(error, file=sys.stderr)
        return outcome


def exit_code(outcome: Outcome) -> ExitCode:
    """The exit code of an outcome."""
    if outcome.champion is not None:
        return ExitCode.OK if outcome.error is None else _code_of(outcome)
    if outcome.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        return outcome.verdict.exit_code
    return _code_of(outcome)


def _code_of(outcome: Outcome) -> ExitCode:
    code = outcome.error.exit_code if outcome.error else int(ExitCode.UNEXPECTED)
    return ExitCode(code) if code in set(ExitCode) else ExitCode.UNEXPECTED
