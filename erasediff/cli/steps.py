"""One subcommand for each row of the table of steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.inputs import (
    open_workdir,
    print_outcome,
    print_purge,
    read_config,
    read_policy,
    read_request,
    verdict_code,
    watched,
)
from erasediff.cli.options import (
    WORKDIR,
    ConfigOption,
    DatasetOption,
    LabelOption,
    PolicyOption,
    ResizeOption,
    RunOption,
    SeedOption,
    TierOption,
    WorkdirOption,
)
from erasediff.environment import is_main_process
from erasediff.errors import ExitCode
from erasediff.steps.table import STEPS, Role, Step, step_named


def _plain(row: Step) -> Callable[..., int]:
    """The subcommand of a step that needs an attempt only."""

    def command(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
        from erasediff.records.core import verdict_in
        from erasediff.steps.perform import perform, perform_batch

        attempt = open_workdir(workdir).attempt(run)
        with watched():
            perform(row, attempt) if row.role is Role.ANSWERS else perform_batch(row, attempt)
        if not is_main_process() or row.makes is None:
            return ExitCode.OK
        print(f"{row.name}: {attempt.path(row.makes)}")
        return verdict_code(verdict_in(attempt.need(row.makes))) if row.role is Role.DECIDES else ExitCode.OK

    return command


def check_prerequisites(
    forget_label: LabelOption,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    dataset: DatasetOption = None,
    resize: ResizeOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    run: RunOption = None,
    tier: TierOption = None,
) -> int:
    """See the table of steps."""
    from erasediff.steps.perform import open_attempt

    configured = read_config(config, seed, dataset, resize)
    opened = open_attempt(open_workdir(workdir), (read_request(configured, forget_label),), configured, read_policy(policy, tier), run)
    print(f"attempt {opened.name} is open")
    return ExitCode.OK


def train_base(
    config: Annotated[
        Optional[Path],
        typer.Option("--config", help="Train and register the champion of this configuration (YAML) if there is none, without an attempt."),
    ] = None,
    dataset: DatasetOption = None,
    resize: ResizeOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    run: RunOption = None,
) -> int:
    """See the table of steps."""
    if config is None and dataset is None and resize is None:
        return _plain(step_named("train_base"))(workdir, run)
    from erasediff.steps.train_base import ensure_champion

    with watched():
        base = ensure_champion(open_workdir(workdir), read_config(config, seed, dataset, resize))
    print(f"champion of {base.name} is version {base.version}, weights {base.model.weights.sha256[:12]}")
    return ExitCode.OK


def purge(
    workdir: WorkdirOption = WORKDIR,
    run: RunOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted, by store and kind; change nothing.")] = False,
) -> int:
    """See the table of steps."""
    if not dry_run:
        return _plain(step_named("purge"))(workdir, run)
    from erasediff.steps.purge import preview

    return print_purge(preview(open_workdir(workdir).attempt(run)))


def certify(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """See the table of steps."""
    from erasediff.records.certificate import CertificateRecord
    from erasediff.records.purging import PurgeRecord
    from erasediff.steps.perform import perform

    attempt = open_workdir(workdir).attempt(run)
    perform(step_named("certify"), attempt)
    record = attempt.need(CertificateRecord)
    print(f"{record.phase} certificate {record.statement[:12]}, signed by the key {record.key_id[:12]}, in {attempt.folder}:")
    for file in record.files:
        print(f"  {file.uri}")
    unfinished = attempt.find(PurgeRecord)
    if unfinished is None or unfinished.complete:
        return ExitCode.OK
    store = unfinished.unfinished[0].store
    print(f"erasediff: the purge is not complete (store '{store}'): run `erasediff purge`, then certify again.", file=sys.stderr)
    return ExitCode.UNFINISHED


def regate(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    dataset: DatasetOption = None,
    resize: ResizeOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
) -> int:
    """See the table of steps."""
    from erasediff.cli.pipeline import regate_here

    return regate_here(open_workdir(workdir), read_config(config, seed, dataset, resize), read_policy(policy, None))


def record_outcome(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """See the table of steps."""
    from erasediff.attempts.batch import requests_in
    from erasediff.steps.perform import close_attempt

    opened = open_workdir(workdir)
    attempt = opened.attempt(run)
    print_outcome(close_attempt(opened, attempt, requests_in(attempt)), workdir)
    return ExitCode.OK


_WITH_OPTIONS: tuple[Callable[..., int], ...] = (check_prerequisites, train_base, purge, certify, regate, record_outcome)
_custom = {command.__name__: command for command in _WITH_OPTIONS}
for _row in STEPS:
    app.command(_row.command, help=_row.help, rich_help_panel=Group.STEPS)(_custom.get(_row.name) or _plain(_row))
