"""Entry point of the pipeline's components: run one step for every attempt of the batch, in its own process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from erasediff.attempts import under_way
from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of
from erasediff.attempts.journal import failure_recorded, journaled, opened_no_attempt
from erasediff.attempts.workdir import Workdir
from erasediff.environment import close_umask, in_pod
from erasediff.errors import EraseDiffError, NotPassed
from erasediff.logs import LastWords, report_failure, whole_log_to
from erasediff.progress import say, shown_by
from erasediff.records.base import Record, Strict
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, Failure, Verdict, verdict_in
from erasediff.records.policy import GatePolicy
from erasediff.records.sizes import TrainingSize
from erasediff.steps.batches import next_batch
from erasediff.steps.check_prerequisites import named_requests
from erasediff.steps.headline import headline_of
from erasediff.steps.perform import close_attempt, current_attempt_for, open_attempt, perform_batch
from erasediff.steps.request_lifecycle import answered_requests
from erasediff.steps.table import Role, Step, step_for, step_named


@dataclass(frozen=True)
class Done:
    """What a component returns.

    Attributes:
        text: the attempt's name, or the digest of the new record; empty if there was nothing to do.
        go_on: whether the attempt has requests, which the steps after the promotion answer.
        numbers: metrics for Kubeflow's page of the run.
        model: metadata of the model that the step made.
        report: the report as HTML, if there is one.
    """

    text: str = ""
    go_on: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    report: bytes = b""


@dataclass(frozen=True)
class Documents:
    """The documents of a run as JSON, from the pipeline's parameters.

    ``request`` tells classes by positions; an empty one means the next batch of the ledger. ``if_busy`` says what a run does that finds another one
    in its workdir: ``skip``, as the runs of a schedule do, or ``fail``.
    """

    request: str
    config: str
    policy: str
    if_busy: str = "fail"

    def parsed(self) -> tuple[RunConfig, GatePolicy]:
        """Parse the config and the policy.

        Raises:
            BadInput: one of them does not follow its schema.
        """
        return RunConfig.parse_json(self.config, "the config"), GatePolicy.parse_json(self.policy, "the policy")


class TakenRequests(Strict):
    """What a run is to erase, with the names of the classes; ``handed`` is the request in the pipeline's parameters. It never leaves the workdir."""

    handed: str
    requests: tuple[ErasureRequest, ...]


def perform_component(name: str, workdir: str, *, run: str = "", documents: Documents | None = None, size: Mapping[str, str] | None = None) -> Done:
    """Run a step for the pipeline; an error ends the process with its message and exit code.

    Kubeflow's launcher drops what a step that fails hands over. So the last step of a run that failed before it opened an attempt ends well, with the
    error as its report.

    Args:
        name: the step's name.
        workdir: the workdir that all steps share.
        run: the attempt's name; empty for the first and the last step.
        documents: for steps that open, close or idle.
        size: of the training steps, as :class:`erasediff.records.sizes.TrainingSize` reads it; for steps that check it or hand it on.
    """
    close_umask()
    row = step_named(name)
    try:
        with whole_log_to(sys.stderr) as viewer, shown_by(viewer):
            folder = Workdir.open(workdir)
            if documents is not None and _waits(row, folder, documents):
                return Done()
            with _place_in(folder, row):
                if documents is None:
                    return _perform(row, folder.attempt(run), _parsed(size))
                if row.role is Role.OPENS:
                    return _open(folder, documents, _parsed(size))
                return {Role.CLOSES: _close, Role.IDLES: _regate}[row.role](folder, documents)
    except EraseDiffError as error:
        report_failure(str(LastWords(row.command, int(error.exit_code), str(error))))
        if row.role is Role.CLOSES and opened_no_attempt(Workdir(Path(workdir))):
            return Done(report=_page(Failure(step=row.name, message=str(error), exit_code=int(error.exit_code))))
        sys.exit(int(error.exit_code))


def _page(failure: Failure) -> bytes:
    from erasediff.evaluate.report import render_failure  # imports what draws

    return render_failure(failure).encode()


def _waits(row: Step, workdir: Workdir, documents: Documents) -> bool:
    """Whether this run leaves the workdir to another one; the log says so."""
    if row.role is Role.CLOSES:
        if under_way.is_of_another(workdir):
            say("another run has the workdir, so this one leaves no outcome there.")
            return True
        return False
    other = under_way.other_run(workdir) if documents.if_busy == "skip" else None
    if other is not None:
        say(f"{under_way.told(workdir, other)}: nothing is done until this schedule's next time.")
    return other is not None


@contextmanager
def _place_in(workdir: Workdir, row: Step) -> Iterator[None]:
    """Hold the workdir for this run while a step works; the last step gives it back."""
    if row.role in (Role.OPENS, Role.IDLES):
        under_way.take(workdir, row.name)
    with ExitStack() as stack:
        if row.role is Role.CLOSES:
            stack.callback(under_way.release, workdir)
        stack.enter_context(under_way.kept(workdir, row.name))
        yield


def _parsed(size: Mapping[str, str] | None) -> TrainingSize | None:
    return None if size is None else TrainingSize.parse(dict(size), "the size of the training steps")


def _perform(row: Step, attempt: Attempt, size: TrainingSize | None) -> Done:
    records = perform_batch(row, attempt, size)
    if row.role is Role.DECIDES:
        _check_passed(row, records, attempt.workdir)
    go_on = row.role is Role.PROMOTES and any(map(answered_requests, batch_of(attempt)))
    record: Record = records[0]
    headline = headline_of(record, attempt.workdir)
    return Done(record.digest(), go_on, headline.numbers, headline.model)


def _check_passed(row: Step, records: Sequence[Record], workdir: Workdir) -> None:
    """End a run that may not be promoted as failed, without a condition that would need a pod of its own.

    Raises:
        NotPassed: a decision is not PASS.
    """
    refused = [record for record in records if verdict_in(record) is not Verdict.PASS]
    if refused:
        told = "; ".join(headline_of(record, workdir).words for record in refused)
        raise NotPassed(f"{row.title}: {told}, so nothing is promoted; the report shows every check.", verdict_in(refused[0]).exit_code)


def _open(workdir: Workdir, documents: Documents, size: TrainingSize | None) -> Done:
    requests = _requests(workdir, documents)
    if requests and size is not None and in_pod():
        from erasediff.cluster.nodes import check_nodes  # imports the Kubernetes client

        with failure_recorded(step_for(Role.OPENS).name, workdir.root):
            check_nodes(size.resources(), size.told())
    return Done(open_attempt(workdir, requests, *documents.parsed()).name if requests else "")


def _requests(workdir: Workdir, documents: Documents) -> tuple[ErasureRequest, ...]:
    """The requests of this run; none if none is open. They are also written to a file for the exit handler."""
    workdir.batch_file.unlink(missing_ok=True)
    config, _ = documents.parsed()
    with failure_recorded(step_for(Role.OPENS).name, workdir.root):
        requests = named_requests(workdir, documents.request, config) if documents.request else next_batch(workdir, config.dataset.name)
    if requests:
        TakenRequests(handed=documents.request, requests=requests).write(workdir.batch_file)
    else:
        say(f"no open requests for {config.dataset.name}: every accepted request is fulfilled or held.")
    return requests


def _regate(workdir: Workdir, documents: Documents) -> Done:
    from erasediff.steps.regate import check_passed, regate

    with journaled(step_for(Role.IDLES).name, workdir.root) as came_out:
        record = regate(workdir, RunConfig.parse_json(documents.config, "the config"), GatePolicy.parse_json(documents.policy, "the policy"))
        if record is not None:
            headline = headline_of(record, workdir)
            came_out.result, came_out.digest = headline.words, record.digest()
    if record is None:
        return Done()
    check_passed(record)
    return Done(record.digest(), numbers=headline.numbers)


def _close(workdir: Workdir, documents: Documents) -> Done:
    taken = TakenRequests.read(workdir.batch_file) if workdir.batch_file.is_file() else None
    requests = () if taken is None or taken.handed != documents.request else taken.requests
    if not (requests or documents.request):
        say("there was no request, so there is no outcome.")
        return Done()
    attempt = current_attempt_for(workdir, requests, *documents.parsed()) if requests else None
    outcome = close_attempt(workdir, attempt, requests)
    if outcome.report is not None:
        return Done(report=workdir.report.read_bytes())
    return Done() if outcome.error is None else Done(report=_page(outcome.error))
