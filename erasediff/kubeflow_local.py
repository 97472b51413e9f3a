"""Run the compiled Kubeflow pipeline on this machine and show its progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from erasediff.attempts.under_way import held_here
from erasediff.attempts.workdir import LAUNCH_PREFIX, Workdir
from erasediff.data.datasets import load_dataset
from erasediff.display import display
from erasediff.environment import ALLOCATOR, KUBEFLOW_RUN, THREADS
from erasediff.errors import EraseDiffError
from erasediff.files import explain_disk_errors, mark_in_use, shipped, write_atomic
from erasediff.progress import FILE_VARIABLE, Event
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, Outcome
from erasediff.records.policy import GatePolicy
from erasediff.records.positions import positioned_text

_POLL_SECONDS = 0.2
PROBE, _PROBE_BYTES = ".probe", 1 << 18


def run_pipeline(workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy) -> Outcome:
    """Run the erasure pipeline to its end, for one request or for a batch.

    Returns:
        The outcome of the first request, from ``outcome.json``. The pipeline's own status never counts as evidence.

    Raises:
        BadInput: another run is under way in this workdir, or the dataset has not the class.
        EraseDiffError: the pipeline left no outcome.
    """
    class_names = load_dataset(config.dataset).class_names
    with explain_disk_errors(workdir.root), held_here(workdir) as held:
        workdir.outcome.unlink(missing_ok=True)
        log = workdir.root / "pipeline.log"
        with tempfile.TemporaryDirectory(dir=workdir.root, prefix=LAUNCH_PREFIX) as scratch, mark_in_use(Path(scratch)):
            arguments = Path(scratch) / "arguments.json"
            events = Path(os.environ.get(FILE_VARIABLE) or Path(scratch) / "progress.jsonl")  # whoever watches from outside reads it too
            documents = {"config": config.canonical().decode(), "policy": policy.canonical().decode(), "workdir": str(workdir.root)}
            arguments.write_text(json.dumps({"request": positioned_text(requests, class_names), **documents}))
            command = [sys.executable, str(shipped("pipelines/local.py")), str(shipped("pipelines/compiled/erasure.yaml")), str(arguments)]
            environment = {**THREADS, **ALLOCATOR, **os.environ, FILE_VARIABLE: str(events)}
            environment.pop(KUBEFLOW_RUN, None)  # the workdir's lock keeps other runs out
            # The pipeline inherits the workdir's lock: if this command is killed, the pipeline goes on working in there.
            with (
                log.open("ab") as output,
                events.open("a+") as stream,  # from its end: the file may have events of an earlier run
                subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=(held,)) as process,
                display(sys.stdout) as show,
            ):
                _watch(process, stream, show)
    if not workdir.outcome.is_file():
        with explain_disk_errors(workdir.root):
            write_atomic(workdir.root / PROBE, bytes(_PROBE_BYTES))  # fails with a better message if the disk is full
            (workdir.root / PROBE).unlink()
        raise EraseDiffError(f"the pipeline ended without an outcome: the log is {log}.")
    return Outcome.read(workdir.outcome)


def _watch(process: subprocess.Popen[bytes], events: TextIO, show: Callable[[Event], None]) -> None:
    """Show the events that the steps append to a file, until the pipeline ends."""
    running, partial = True, ""
    while running:
        try:
            process.wait(_POLL_SECONDS)
            running = False
        except subprocess.TimeoutExpired:
            pass
        partial += events.read()
        *lines, partial = partial.split("\n")
        for line in lines:
            show(json.loads(line))
