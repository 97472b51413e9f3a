"""Run the compiled Kubeflow pipeline on this machine and show how it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from erasediff.environment import ALLOCATOR, THREADS
from erasediff.errors import BadInput, EraseDiffError, ExitCode
from erasediff.files import alone, explained, in_use, write_atomic
from erasediff.progress import FILE_VARIABLE
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ErasureRequest, Outcome, Verdict, requests_text
from erasediff.records.policy import GatePolicy
from erasediff.records.workdir import LAUNCH_PREFIX, Workdir

_HERE = Path(__file__).parent
_POLL_SECONDS = 0.2
PROBE, _PROBE_BYTES = ".probe", 1 << 18
_TITLES = {
    "check_prerequisites": "Check prerequisites",
    "train_base": "Train or find the base",
    "version_forget_set": "Version the forget set",
    "erase": "Erase",
    "evaluate": "Evaluate",
    "gate": "Gate",
    "export_onnx": "Export to ONNX",
    "register": "Register",
    "roll_out": "Roll out",
    "promote": "Promote",
    "purge": "Purge",
    "certify": "Certify",
    "regate": "Judge what serves",
    "record_outcome": "Record the outcome",
}


def shipped(name: str) -> Path:
    """A file of the pipeline or a policy: inside an installed package, or in the source tree beside it.

    Raises:
        BadInput: neither is there.
    """
    for path in (_HERE / "_shipped" / name, _HERE.parent / name):
        if path.is_file():
            return path
    raise BadInput(f"{name} is missing from this installation: install erasediff again.")


def run_pipeline(workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy) -> Outcome:
    """Run the erasure pipeline to its end, for one request or for several that are erased together.

    Returns:
        What ``outcome.json`` says of the first. The pipeline's own status is never taken as evidence.

    Raises:
        BadInput: another pipeline is under way in this workdir.
        EraseDiffError: the pipeline left no outcome.
    """
    busy = f"another pipeline is under way in {workdir.root}: wait for its end, or choose another --workdir."
    with explained(workdir.root), alone(workdir.root, busy) as held:
        workdir.outcome.unlink(missing_ok=True)
        log = workdir.root / "pipeline.log"
        with tempfile.TemporaryDirectory(dir=workdir.root, prefix=LAUNCH_PREFIX) as scratch, in_use(Path(scratch)):
            arguments, events = Path(scratch) / "arguments.json", Path(scratch) / "progress.jsonl"
            documents = {"config": config.canonical().decode(), "policy": policy.canonical().decode(), "workdir": str(workdir.root)}
            arguments.write_text(json.dumps({"request": requests_text(requests), **documents}))
            events.touch()
            command = [sys.executable, str(shipped("pipelines/local.py")), str(shipped("pipelines/compiled/erasure.yaml")), str(arguments)]
            environment = {**THREADS, **ALLOCATOR, **os.environ, FILE_VARIABLE: str(events)}
            with log.open("ab") as output, _pipeline(command, output, environment, held) as process:
                _watch(process, events)
    if not workdir.outcome.is_file():
        with explained(workdir.root):
            write_atomic(workdir.root / PROBE, bytes(_PROBE_BYTES))  # a disk that is full took no outcome either, nor the sentence
            (workdir.root / PROBE).unlink()
        raise EraseDiffError(f"the pipeline ended without an outcome: the log is {log}.")
    return Outcome.read(workdir.outcome)


def _pipeline(command: list[str], output: IO[bytes], environment: dict[str, str], lock: int) -> subprocess.Popen[bytes]:
    """The pipeline's process. It inherits the workdir's lock, since as an orphan of a killed command it still works in there."""
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,))


def exit_code(outcome: Outcome) -> ExitCode:
    """The exit code that an outcome means."""
    if outcome.champion is not None:
        return ExitCode.OK if outcome.error is None else _code_of(outcome)
    if outcome.verdict is Verdict.FAIL:
        return ExitCode.GATE_FAIL
    if outcome.verdict is Verdict.INCONCLUSIVE:
        return ExitCode.GATE_INCONCLUSIVE
    return _code_of(outcome)


def _code_of(outcome: Outcome) -> ExitCode:
    code = outcome.error.exit_code if outcome.error else int(ExitCode.UNEXPECTED)
    return ExitCode(code) if code in set(ExitCode) else ExitCode.UNEXPECTED


class _Display(Protocol):
    def step(self, title: str, state: str, seconds: float) -> None: ...

    def work(self, what: str, done: int, total: int) -> None: ...


class _Lines:
    """One line a step, for logs."""

    def step(self, title: str, state: str, seconds: float) -> None:
        if state != "started":
            print(f"{title:<34} {state:>7} {seconds:8.1f} s", flush=True)

    def work(self, what: str, done: int, total: int) -> None:
        return


class _Bars:
    """A bar a step and a moving one for the work inside it, for terminals."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.progress = Progress(
            SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._steps: dict[str, int] = {}
        self._work: dict[str, int] = {}

    def step(self, title: str, state: str, seconds: float) -> None:
        if state == "started":
            self._steps[title] = self.progress.add_task(f"[bold]{title}", total=1)
        elif title in self._steps:
            mark = "" if state == "done" else " [red]failed"
            self.progress.update(self._steps[title], completed=1 if state == "done" else 0, description=f"[bold]{title}{mark}")  # type: ignore[arg-type]
            self.progress.stop_task(self._steps[title])  # type: ignore[arg-type]

    def work(self, what: str, done: int, total: int) -> None:
        if what not in self._work:
            self._work[what] = self.progress.add_task(f"  {what}", total=total)
        self.progress.update(self._work[what], completed=done, total=total)  # type: ignore[arg-type]


@contextmanager
def _display() -> Iterator[_Display]:
    if not sys.stdout.isatty():
        yield _Lines()
        return
    bars = _Bars()
    with bars.progress:
        yield bars


def _watch(process: subprocess.Popen[bytes], events: Path) -> None:
    """Show the events that the steps append to a file until the pipeline ends."""
    with _display() as display, events.open() as stream:
        running, partial = True, ""
        while running:
            try:
                process.wait(_POLL_SECONDS)
                running = False
            except subprocess.TimeoutExpired:
                pass
            partial += stream.read()
            *lines, partial = partial.split("\n")
            for line in lines:
                _show(display, json.loads(line))


def _show(display: _Display, event: dict[str, object]) -> None:
    if "step" in event:
        title = _TITLES.get(str(event["step"]), str(event["step"]))
        display.step(f"{title}, {event['of']}" if event["of"] else title, str(event["state"]), float(str(event["seconds"])))
    else:
        display.work(str(event["what"]), int(str(event["done"])), int(str(event["total"])))
