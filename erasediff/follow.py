"""Follow a run on Kubeflow Pipelines to its end: which steps began and ended, and the exit code that this comes to."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from erasediff.errors import BadInput, ExitCode
from erasediff.logs import LastWords, last_words
from erasediff.records.submission import SeenRun, SeenTask
from erasediff.steps.table import STEPS, Role, step_for, work_steps

_POLL_SECONDS, _LOST = 10.0, 30
"""A look every ten seconds, and how many in a row may fail: a server that restarts is waited for."""
_BEGUN, _WELL, _FAILED = "RUNNING", "SUCCEEDED", "FAILED"
_ENDS = {_WELL: "has ended well", _FAILED: "has failed", "CANCELED": "was terminated"}
_EXECUTOR = "executor"
"""Kubeflow's name of the task that starts the pod of a step."""
_DECIDES = tuple(row.command for row in STEPS if row.role is Role.DECIDES)


def _titles() -> dict[str, str]:
    """The steps' titles by the names of their tasks, in order; kfp numbers a step that comes twice."""
    titles, times = {}, Counter[str]()
    for row in (step_for(Role.OPENS), step_for(Role.IDLES), *work_steps(), step_for(Role.CLOSES)):
        times[row.command] += 1
        number = times[row.command]
        titles[row.command if number == 1 else f"{row.command}-{number}"] = row.title
    return titles


def states_of(run: SeenRun) -> dict[str, str]:
    """The states of the steps that began, by the names of their tasks; drivers and conditions are left out."""
    found = {task.name: task.state for task in run.tasks if task.state == _BEGUN or task.state in _ENDS}
    return {name: found[name] for name in _titles() if name in found}


def news(before: Mapping[str, str], run: SeenRun) -> list[str]:
    """A sentence for each step that began or ended since the states ``before``."""
    titles, seconds = _titles(), {task.name: task.seconds for task in run.tasks}
    lines = []
    for name, state in states_of(run).items():
        if before.get(name) == state:
            continue
        took = f" after {seconds[name]:.0f} s" if state in _ENDS and seconds[name] is not None else ""
        lines.append(f"{titles[name]} ({name}) {_ENDS.get(state, 'begins')}{took}.")
    return lines


def has_ended(run: SeenRun) -> bool:
    """Whether nothing more will come."""
    return run.state in _ENDS or run.state == "SKIPPED"


def failed_steps(run: SeenRun) -> list[str]:
    """The names of the steps that failed, in the order of the table."""
    return [name for name, state in states_of(run).items() if state == _FAILED]


def pod_of(run: SeenRun, step: str) -> str | None:
    """Argo's name of the pod in which a step failed, of several tries the last.

    Kubeflow's API gives a step no pod. Each step has an executor beneath it, which begins when the step does and whose children are its tries.
    """
    begun = next((task.started for task in run.tasks if task.name == step and task.state == _FAILED), None)
    executors = [task for task in run.tasks if (task.name, task.state) == (_EXECUTOR, _FAILED) and task.children]
    if begun is None or not executors:
        return None

    def distance(task: SeenTask) -> float:
        return math.inf if task.started is None else abs((task.started - begun).total_seconds())

    return min(executors, key=distance).children[-1]


def why(run: SeenRun, read_log: Callable[[str], str]) -> LastWords | None:
    """What the first step that failed said last, if Kubeflow hands out its log.

    Args:
        run: a run that has ended.
        read_log: the log of a pod, by Argo's name of it.
    """
    failed = failed_steps(run)
    pod = pod_of(run, failed[0]) if failed else None
    if pod is None:
        return None
    try:
        words = last_words(read_log(pod))
    except BadInput:
        return None
    return words if words is not None and words.command == failed[0] else None


def verdict(run: SeenRun, words: LastWords | None = None) -> tuple[ExitCode, str]:
    """The exit code and the sentence for a run that has ended.

    Kubeflow's API keeps no exit codes of steps. Where the last words are not known, a step that failed is 1, whatever its own exit code was, and a
    decision is 10, FAIL and INCONCLUSIVE alike.

    Args:
        run: the run.
        words: see :func:`why`.
    """
    states = states_of(run)
    if run.state == "CANCELED":
        return ExitCode.INTERRUPTED, "was terminated"
    if run.state != _WELL:
        return _failure(failed_steps(run), words)
    if states.get(step_for(Role.PROMOTES).command) == _WELL:
        return ExitCode.OK, "ended well: the model is promoted"
    if states.get(step_for(Role.IDLES).command) == _WELL:
        return ExitCode.OK, "ended well: no request was open"
    return ExitCode.UNEXPECTED, "ended, and Kubeflow names no promotion: look at the report"


def _failure(failed: Sequence[str], words: LastWords | None) -> tuple[ExitCode, str]:
    where = ", ".join(failed) or "no step that Kubeflow names"
    if words is not None:
        known = {code.value: code for code in ExitCode if code is not ExitCode.OK}
        return known.get(words.exit_code, ExitCode.UNEXPECTED), f"failed in {where}: {words.sentence.rstrip('.')}"
    code = ExitCode.GATE_FAIL if failed and failed[0] in _DECIDES else ExitCode.UNEXPECTED
    return code, f"failed in {where}: the last sentence of its log says why, and so does the report"


def follow(look: Callable[[], SeenRun], show: Callable[[str], None], pause: Callable[[float], None] = time.sleep) -> SeenRun:
    """Look at a run until it has ended, and show what is new.

    Raises:
        BadInput: Kubeflow did not answer for minutes, or refuses.
    """
    before: dict[str, str] = {}
    lost = 0
    while True:
        try:
            run, lost = look(), 0
        except BadInput:
            lost += 1
            if lost > _LOST:
                raise
        else:
            for line in news(before, run):
                show(line)
            before = states_of(run)
            if has_ended(run):
                return run
        pause(_POLL_SECONDS)
