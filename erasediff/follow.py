"""Follow a run on Kubeflow Pipelines to its end: which steps began and ended, and the exit code that this comes to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from erasediff.errors import BadInput, ExitCode
from erasediff.records.submission import SeenRun
from erasediff.steps.table import STEPS, Role, step_for, work_steps

_POLL_SECONDS, _LOST = 10.0, 30
"""A look every ten seconds, and how many in a row may fail: a server that restarts is waited for."""
_BEGUN, _WELL = "RUNNING", "SUCCEEDED"
_ENDS = {_WELL: "has ended well", "FAILED": "has failed", "CANCELED": "was terminated"}


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


def verdict(run: SeenRun) -> tuple[ExitCode, str]:
    """The exit code and the sentence for a run that has ended.

    Kubeflow's API keeps no exit codes and no sentences of steps. So a step that failed is 1, whatever its own exit code was, and a decision other
    than PASS is 10, FAIL and INCONCLUSIVE alike: the run is green then, and the steps after the decision never began.
    """
    states = states_of(run)
    if run.state == "CANCELED":
        return ExitCode.INTERRUPTED, "was terminated"
    if run.state != _WELL:
        failed = ", ".join(name for name, state in states.items() if state == "FAILED") or "no step that Kubeflow names"
        return ExitCode.UNEXPECTED, f"failed in {failed}: the last sentence of its log says why, and so does the report"
    if states.get(step_for(Role.PROMOTES).command) == _WELL:
        return ExitCode.OK, "ended well: the model is promoted"
    if states.get(step_for(Role.IDLES).command) == _WELL:
        return ExitCode.OK, "ended well: no request was open"
    decided = [row.command for row in STEPS if row.role is Role.DECIDES and row.command in states]
    if not decided:
        return ExitCode.UNEXPECTED, "ended, and Kubeflow names no decision and no promotion: look at the report"
    return ExitCode.GATE_FAIL, f"ended without a promotion, for {decided[-1]} did not say PASS: the report has its checks"


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
