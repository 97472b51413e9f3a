"""How every step is run, whoever calls it: timed, its failure written down as one sentence, its progress reported."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from erasediff.environment import is_main_process
from erasediff.errors import EraseDiffError, ExitCode, explain_missing_module, explain_os_error
from erasediff.files import alone, write_atomic
from erasediff.progress import announce
from erasediff.records.base import Record
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ErasureRequest, Failure, Outcome, Verdict, requests_text
from erasediff.records.policy import GatePolicy
from erasediff.records.workdir import Run, Workdir
from erasediff.steps.batches import next_batch, said, settle
from erasediff.steps.decided import standing
from erasediff.steps.filed import answered, follow, take
from erasediff.steps.journal import keep_seconds, read_failure, write_failure

T = TypeVar("T")


Work = Callable[[Run], Record]


def perform(step: str, run: Run, elsewhere: Work | None = None) -> Record:
    """Run one step of an attempt, and up to the promotion of all that are in its batch; one process of several keeps the books.

    Args:
        step: which one.
        run: the attempt.
        elsewhere: what to call in place of the step's own function, where another machine does the work of the batch's first attempt.

    Returns:
        The attempt's record.

    Raises:
        EraseDiffError: what the step raised; the sentence is in the attempt's folder too.
    """
    if not is_main_process():
        return _work(step)(run.lead)
    if step in _AFTER_THE_PROMOTION:
        return _performed(step, run)
    records = {one.name: _performed(step, one, elsewhere if one == run.lead else None) for one in run.batch()}
    settle(run, step)
    return records[run.name]


_AFTER_THE_PROMOTION = frozenset({"purge", "certify"})
"""What one request is held or waits for keeps the others of its batch from nothing."""


def _work(step: str) -> Work:
    """A step's own function, unless its record is there."""

    def work(run: Run) -> Record:
        there = standing(step, run)
        if there is not None:
            return there
        function: Work = getattr(import_module(f"erasediff.steps.{step}"), step)
        return function(run)

    return work


def _performed(step: str, run: Run, elsewhere: Work | None = None) -> Record:
    """Run one step of one attempt, timed and announced."""
    failure = read_failure(run.folder)
    if failure is not None and failure.step == step:
        (run.folder / "failure.json").unlink()
    started = time.monotonic()
    announce(step, "started", 0.0, _of(run))
    # Where another machine does the work, the process over there holds the attempt.
    record = guarded(step, run.folder, lambda: _followed(step, run, elsewhere or _alone(_work(step))), _of(run))
    seconds = round(time.monotonic() - started, 3)
    keep_seconds(run, step, seconds)
    announce(step, "done", seconds, _of(run))
    return record


def _of(run: Run) -> str:
    """Which of a batch's attempts it is; nothing of one that is alone."""
    return f"class {run.plan().request.label}" if run.others() else ""


def _alone(work: Callable[[Run], Record]) -> Callable[[Run], Record]:
    """The same work, by one process at a time."""

    def held(run: Run) -> Record:
        with alone(run.folder, f"a step of run {run.name} is under way in another process: wait for its end and run the same command again."):
            return work(run)

    return held


def _followed(step: str, run: Run, function: Callable[[Run], Record]) -> Record:
    """A step, and then what its end means for the requests that the attempt answers."""
    record = function(run)
    follow(run, step)
    return record


def guarded(step: str, folder: Path, action: Callable[[], T], of: str = "") -> T:
    """Run an action of a step; whatever it raises is written to ``folder/failure.json`` as one sentence.

    Raises:
        EraseDiffError: as raised, or made from an operating-system error that has a sentence of its own.
    """
    try:
        return action()
    except EraseDiffError as error:
        write_failure(folder, Failure(step=step, message=str(error), exit_code=int(error.exit_code)))
        announce(step, "failed", 0.0, of)
        raise
    except Exception as error:
        known = _explained(error, folder)
        log = folder / f"{step}.traceback.log"
        message = str(known) if known else f"step {step} failed unexpectedly ({type(error).__name__}): the traceback is in {log}."
        write_failure(folder, Failure(step=step, message=message, exit_code=int(known.exit_code if known else ExitCode.UNEXPECTED)))
        announce(step, "failed", 0.0, of)
        if known is not None:
            raise known from error
        write_atomic(log, traceback.format_exc().encode())
        raise EraseDiffError(message) from error


def _explained(error: Exception, folder: Path) -> EraseDiffError | None:
    if isinstance(error, ModuleNotFoundError):
        return explain_missing_module(error)
    return explain_os_error(error, folder) if isinstance(error, OSError) else None


def open_attempt(workdir: Workdir, request: str, config: str, policy: str, name: str | None = None) -> Run:
    """Parse a run's three documents and open an attempt.

    Raises:
        EraseDiffError: what is wrong; the sentence is in the workdir too, for there is no attempt's folder yet.
    """
    from erasediff.steps.check_prerequisites import check_prerequisites, parse_documents

    (workdir.root / "failure.json").unlink(missing_ok=True)
    started = time.monotonic()
    announce("check_prerequisites", "started", 0.0)

    def action() -> Run:
        opened = check_prerequisites(workdir, *parse_documents(request, config, policy), name)
        for one in opened.batch():
            take(one)
        return opened

    run = guarded("check_prerequisites", workdir.root, action)
    seconds = round(time.monotonic() - started, 3)
    for one in run.batch():
        (one.folder / "failure.json").unlink(missing_ok=True)
        keep_seconds(one, "check_prerequisites", seconds)
    announce("check_prerequisites", "done", seconds)
    return run


def close_attempt(workdir: Workdir, request: str, config: str, policy: str) -> Outcome:
    """Record the outcome of the attempt that these documents opened, or that none could be opened."""
    from erasediff.steps.check_prerequisites import parse_documents
    from erasediff.steps.record_outcome import record_missing_run, record_outcome

    asked, configured, demanded = parse_documents(request, config, policy)
    announce("record_outcome", "started", 0.0)
    started = time.monotonic()
    run = _opened(workdir, configured.digest(), demanded.digest(), asked)
    outcome = record_missing_run(workdir, asked[0]) if run is None else guarded("record_outcome", run.folder, lambda: record_outcome(run))
    announce("record_outcome", "done", round(time.monotonic() - started, 3))
    return outcome


def _opened(workdir: Workdir, config: str, policy: str, requests: tuple[ErasureRequest, ...]) -> Run | None:
    """The attempt opened last, if it is the one of these documents."""
    if read_failure(workdir.root) is not None or not workdir.current.is_file():
        return None
    run = workdir.run()
    plan = run.plan()
    return run if (set(run.requests()), plan.config_digest, plan.policy_digest) == (set(requests), config, policy) else None


def _ending_with_a_sentence(step: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except EraseDiffError as error:
        print(f"erasediff {step}: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))


def component_main(step: str, workdir: str, run: str) -> Record:
    """What a component calls: :func:`perform`, ending the process with a sentence and an exit code on an error."""
    return _ending_with_a_sentence(step, lambda: _perform_for_all(step, Workdir.open(workdir).run(run)))


def _perform_for_all(step: str, run: Run) -> Record:
    """A step of an attempt and of all in its batch; after the promotion it has failed only where it failed for every one of them."""
    if step not in _AFTER_THE_PROMOTION:
        return perform(step, run)
    records, failures = [], []
    for one in run.batch():
        try:
            records.append(perform(step, one))
        except EraseDiffError as error:
            print(f"erasediff {step}: class {one.plan().request.label}: {error}", file=sys.stderr)
            failures.append(error)
    if not records:
        raise failures[0]
    return records[0]


def verdict_main(step: str, workdir: str, run: str) -> bool:
    """What the components ``gate`` and ``export_onnx`` call; whether the step said PASS to every attempt of the batch."""

    def passed() -> bool:
        attempt = Workdir.open(workdir).run(run)
        perform(step, attempt)
        return all(said(one, step) is Verdict.PASS for one in attempt.batch())

    return _ending_with_a_sentence(step, passed)


def promote_main(workdir: str, run: str) -> bool:
    """What the component ``promote`` calls; whether an attempt of the batch answers requests."""

    def promote() -> bool:
        attempt = Workdir.open(workdir).run(run)
        perform("promote", attempt)
        return any(answered(one) for one in attempt.batch())

    return _ending_with_a_sentence("promote", promote)


def erase_main(workdir: str, run: str) -> Record:
    """What the component ``erase`` calls: here, or as a TrainJob where the environment describes one."""
    from erasediff.steps.erase_in_trainjob import erase_in_trainjob, trainjob_settings

    def erase() -> Record:
        settings = trainjob_settings()
        elsewhere = None if settings is None else partial(erase_in_trainjob, settings=settings)
        return perform("erase", Workdir.open(workdir).run(run), elsewhere)

    return _ending_with_a_sentence("erase", erase)


def open_main(workdir: str, request: str, config: str, policy: str) -> str:
    """What the component ``check_prerequisites`` calls.

    Args:
        workdir: the folder.
        request: what to erase, one request or a list; empty for what the ledger owes first.
        config: the run's configuration.
        policy: the gate's.

    Returns:
        The name of the attempt; empty where nothing is asked.
    """

    def opened() -> str:
        folder = Workdir.open(workdir)
        asked = request or _owed_first(folder, config)
        return open_attempt(folder, asked, config, policy).name if asked else ""

    return _ending_with_a_sentence("check_prerequisites", opened)


def _owed_first(workdir: Workdir, config: str) -> str:
    """The requests of the next batch, also for :func:`outcome_main`, which runs whatever happened between; empty where there are none."""
    workdir.asked.unlink(missing_ok=True)
    dataset = RunConfig.parse_json(config, "the config").dataset.name
    batch = guarded("check_prerequisites", workdir.root, lambda: next_batch(workdir, dataset))
    if not batch:
        print(f"nothing is asked of {dataset}: no request waits that is decided and not held.")
        return ""
    write_atomic(workdir.asked, requests_text(batch).encode())
    return requests_text(batch)


def regate_main(workdir: str, config: str, policy: str) -> str:
    """What the component ``regate`` calls: the digest of the verdict's record, empty where no champion has forgotten anything."""

    def judged() -> str:
        from erasediff.steps.regate import check_passed, regate

        announce("regate", "started", 0.0)
        started = time.monotonic()
        record = regate(Workdir.open(workdir), RunConfig.parse_json(config, "the config"), GatePolicy.parse_json(policy, "the policy"))
        announce("regate", "done", round(time.monotonic() - started, 3))
        if record is None:
            return ""
        check_passed(record)
        return record.digest()

    return _ending_with_a_sentence("regate", judged)


def outcome_main(workdir: str, request: str, config: str, policy: str, shown: str) -> None:
    """What the component ``record_outcome`` calls; the report is copied to ``shown``, where the run has one."""

    def close() -> None:
        opened = Workdir.open(workdir)
        asked = request or (opened.asked.read_text() if opened.asked.is_file() else "")
        if not asked:
            print("nothing was asked, so there is no outcome.")
        elif close_attempt(opened, asked, config, policy).report is not None:
            write_atomic(Path(shown), opened.report.read_bytes())

    _ending_with_a_sentence("record_outcome", close)
