"""Runs and schedules on Kubeflow Pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.inputs import read_classes, read_config, read_policy
from erasediff.cli.options import (
    ClassesOption,
    ConfigOption,
    CpuOption,
    CronOption,
    ExperimentOption,
    GpusOption,
    HostOption,
    MemoryOption,
    NamespaceOption,
    OptionalLabelOption,
    PolicyOption,
    ProfileOption,
    RequestsOption,
    SeedOption,
    ServiceAccountOption,
    TerminateOption,
    TierOption,
    WaitOption,
)
from erasediff.errors import BadInput, ExitCode
from erasediff.records.submission import Backend

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Its identifier, as `runs` shows it.")]
ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its identifier or its name, as `schedules list` shows them.")]


def hand_in(
    ctx: typer.Context,
    cron: CronOption = None,
    config: ConfigOption = None,
    forget_label: OptionalLabelOption = None,
    classes: ClassesOption = None,
    requests: RequestsOption = False,
    policy: PolicyOption = None,
    seed: SeedOption = None,
    tier: TierOption = None,
    profile: ProfileOption = "gpu",
    cpu: CpuOption = None,
    memory: MemoryOption = None,
    gpus: GpusOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    experiment: ExperimentOption = "erasediff",
    service_account: ServiceAccountOption = None,
    wait: WaitOption = False,
    terminate_on_interrupt: TerminateOption = False,
) -> int:
    """Hand the pipeline to Kubeflow Pipelines: for one run, or with ``--cron`` for a schedule.

    Raises:
        BadInput: ``schedule`` was asked for without ``--cron``, or ``--wait`` where there is no run to wait for.
    """
    from erasediff.submit import backend, chosen_size, request_for, schedule, submission, submit

    if ctx.info_name == "schedule" and cron is None:
        raise BadInput("a schedule needs to know when it runs: give --cron, six fields with the seconds first, such as '0 0 3 * * *'.")
    if wait and cron is not None:
        raise BadInput("a schedule has no run to wait for: leave --wait out.")
    if terminate_on_interrupt and not wait:
        raise BadInput("--terminate-on-interrupt needs a command that waits: give --wait too.")
    where, configured = backend(host, namespace, experiment, service_account), read_config(config, seed)
    request = None if requests else request_for(configured, forget_label, read_classes(classes))
    chosen = chosen_size(profile, configured, cpu, memory, gpus)
    document = submission(where, profile, request, configured, read_policy(policy, tier), chosen.size, cron)
    if cron is None:
        run = submit(document)
        print(f"run {run.run_id} of {document.pipeline}, version {document.version}{' (uploaded)' if run.uploaded else ''}: {document.name}")
    else:
        change = schedule(document)
        print(f"schedule {change.schedule_id} is {change.change}: {document.name}, {document.cron}, with {document.pipeline} {document.version}")
    print(f"training steps: {chosen.size.told()} ({chosen.source}); --cpu and --memory change that.", flush=True)
    return _followed(where, run.run_id, _ended if terminate_on_interrupt else _left) if wait else ExitCode.OK


def _followed(where: Backend, run: str, interrupted: Callable[[Backend, str], None]) -> int:
    """Follow a run to its end, or to Ctrl-C."""
    from erasediff.follow import follow, verdict, why
    from erasediff.submit import look, read_log

    try:
        ended = follow(lambda: look(where, run), lambda line: print(line, flush=True))
        code, sentence = verdict(ended, why(ended, lambda node: read_log(where, run, node)))
    except KeyboardInterrupt:
        interrupted(where, run)
        return ExitCode.INTERRUPTED
    print(f"run {run} {sentence}.")
    return code


def _left(_: Backend, run: str) -> None:
    print(f"run {run} goes on: `erasediff runs terminate {run}` ends it.")


def _ended(where: Backend, run: str) -> None:
    from erasediff.submit import terminate

    terminate(where, run)
    print(f"run {run} is being terminated. A TrainJob of profile gpu-multi stays: kubectl delete trainjob -l app.kubernetes.io/component=erase")


app.command("submit", rich_help_panel=Group.RUN, help="Run the pipeline on Kubeflow Pipelines; ERASEDIFF_KFP_TOKEN holds the token.")(hand_in)
app.command("schedule", rich_help_panel=Group.RUN, help="Schedule the pipeline on Kubeflow Pipelines; a schedule of the same class is replaced.")(
    hand_in
)


runs = typer.Typer(rich_markup_mode=None)
app.add_typer(runs, name="runs", rich_help_panel=Group.RUN)


@runs.callback(invoke_without_command=True)
def list_newest(ctx: typer.Context, host: HostOption = None, namespace: NamespaceOption = None, experiment: ExperimentOption = "erasediff") -> int:
    """List the newest runs on Kubeflow Pipelines, or terminate one."""
    from erasediff.submit import backend, list_runs

    if ctx.invoked_subcommand is not None:
        return ExitCode.OK
    found = list_runs(backend(host, namespace, experiment, None))
    for run in found:
        ended = f", ended {run.finished_at:%Y-%m-%d %H:%M} UTC" if run.finished_at else ""
        print(f"{run.run_id}  {run.state:<10}  {run.name}, since {run.created_at:%Y-%m-%d %H:%M} UTC{ended}")
    if not found:
        print(f"there are no runs in experiment {experiment!r}.")
    return ExitCode.OK


@runs.command("terminate")
def end(run: RunArgument, host: HostOption = None, namespace: NamespaceOption = None) -> int:
    """Terminate a run; a TrainJob that it waits for stays."""
    from erasediff.submit import backend

    _ended(backend(host, namespace, "erasediff", None), run)
    return ExitCode.OK


schedules = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(schedules, name="schedules", rich_help_panel=Group.RUN, help="List, pause, resume and delete schedules on Kubeflow Pipelines.")


@schedules.command("list")
def list_all(host: HostOption = None, namespace: NamespaceOption = None, experiment: ExperimentOption = "erasediff") -> int:
    """List the schedules."""
    from erasediff.submit import backend, list_schedules

    found = list_schedules(backend(host, namespace, experiment, None))
    for schedule in found:
        print(f"{schedule.schedule_id}  {'on' if schedule.enabled else 'paused':<6}  {schedule.cron}  {schedule.name}")
    if not found:
        print(f"there are no schedules in experiment {experiment!r}.")
    return ExitCode.OK


def change(
    ctx: typer.Context,
    schedule: ScheduleArgument,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    experiment: ExperimentOption = "erasediff",
) -> int:
    """Pause, resume or delete a schedule, after the subcommand's name."""
    from erasediff.submit import backend, change_schedule

    changed = change_schedule(backend(host, namespace, experiment, None), str(ctx.info_name), schedule)
    print(f"{ctx.info_name}: {changed.name}")
    return ExitCode.OK


schedules.command("pause", help="Start no more runs; a run that is under way goes on.")(change)
schedules.command("resume", help="Start runs again.")(change)
schedules.command("delete", help="Delete a schedule; its runs stay.")(change)
