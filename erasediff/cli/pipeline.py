"""The whole pipeline on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.inputs import open_workdir, print_outcome, read_config, read_policy, read_request, resumable, verdict_code, watched
from erasediff.cli.options import (
    WORKDIR,
    ConfigOption,
    DatasetOption,
    LabelOption,
    PolicyOption,
    ResizeOption,
    SeedOption,
    TierOption,
    WorkdirOption,
)
from erasediff.errors import ExitCode

if TYPE_CHECKING:
    from erasediff.attempts.workdir import Workdir
    from erasediff.records.config import RunConfig
    from erasediff.records.core import ErasureRequest, Outcome
    from erasediff.records.policy import GatePolicy


class Runner(StrEnum):
    """What runs the steps on this machine."""

    HERE = "here"
    KUBEFLOW_LOCAL = "kubeflow-local"


RunnerOption = Annotated[
    Runner, typer.Option("--runner", help="'here': this process; 'kubeflow-local': the compiled pipeline, one process per step.")
]


@app.command(rich_help_panel=Group.RUN)
def demo(
    workdir: WorkdirOption = WORKDIR,
    forget_label: LabelOption = "0",
    seed: SeedOption = None,
    tier: TierOption = None,
    runner: RunnerOption = Runner.HERE,
) -> int:
    """Erase a digit from a small model of handwritten digits, from the request to the certificate."""
    from erasediff.demo import ensure_signing_key, file_request
    from erasediff.runner import exit_code

    config, policy, opened = read_config(None, seed), read_policy(None, tier), open_workdir(workdir)
    public = config.report.model_copy(update={"show_forgotten": True})  # the digits are public data
    config, request = config.model_copy(update={"report": public}), read_request(config, forget_label)
    ensure_signing_key(opened)
    file_request(opened, request)
    outcome = _performed(runner, opened, (request,), config, policy)
    print_outcome(outcome, workdir)
    return exit_code(outcome)


@app.command(rich_help_panel=Group.RUN)
def run(
    forget_label: LabelOption,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    dataset: DatasetOption = None,
    resize: ResizeOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    tier: TierOption = None,
    runner: RunnerOption = Runner.HERE,
) -> int:
    """Erase a class from a model of your own data: train, erase, gate, export, promote."""
    from erasediff.runner import exit_code

    configured, decided = read_config(config, seed, dataset, resize), read_policy(policy, tier)
    outcome = _performed(runner, open_workdir(workdir), (read_request(configured, forget_label),), configured, decided)
    print_outcome(outcome, workdir)
    return exit_code(outcome)


def _performed(runner: Runner, workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy) -> Outcome:
    with resumable():
        if runner is Runner.KUBEFLOW_LOCAL:
            from erasediff.kubeflow_local import run_pipeline

            return run_pipeline(workdir, requests, config, policy)
        from erasediff.display import display, output_into
        from erasediff.progress import shown_by
        from erasediff.runner import run as run_here

        with output_into(workdir.root / "pipeline.log") as terminal, display(terminal) as viewer, shown_by(viewer):
            return run_here(workdir, requests, config, policy)


@app.command(rich_help_panel=Group.RUN)
def process(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    dataset: DatasetOption = None,
    resize: ResizeOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    tier: TierOption = None,
    runner: RunnerOption = Runner.HERE,
) -> int:
    """Fulfil the ledger's open requests; if there are none, re-run the gate on the deployed model.

    One run erases several classes. If a class does not pass, the others run again without it. The exit code is that of the first class that failed.
    """
    from erasediff.attempts.batch import others_of
    from erasediff.records.core import ErasureRequest, Outcome
    from erasediff.records.names import shown_names
    from erasediff.runner import exit_code
    from erasediff.steps.batches import next_batch, sent_back_with_batch

    configured, decided, opened = read_config(config, seed, dataset, resize), read_policy(policy, tier), open_workdir(workdir)
    tried, codes = set[ErasureRequest](), dict[str | None, ExitCode]()
    while batch := next_batch(opened, configured.dataset.name, tried):
        first = _performed(runner, opened, batch, configured, decided)
        others = () if first.attempt is None else others_of(opened.attempt())
        for outcome in (first, *(Outcome.read(other.folder / "outcome.json") for other in others)):
            print(f"class {shown_names([outcome.forget.label or 'unknown'])} of {configured.dataset.name}:")
            print_outcome(outcome, workdir)
            codes[outcome.forget.label] = exit_code(outcome)
        tried |= (set(batch) - sent_back_with_batch(opened, batch)) or set(batch)
    if not codes:
        print(f"no open requests for {configured.dataset.name}: every accepted request is fulfilled or held.")
        return regate_here(opened, configured, decided)
    return next((code for code in codes.values() if code), ExitCode.OK)


def regate_here(workdir: Workdir, config: RunConfig, policy: GatePolicy) -> int:
    """Re-run the gate on the deployed model."""
    from erasediff.steps.regate import regate

    with watched():
        record = regate(workdir, config, policy)
    if record is None:
        print(f"the champion of {config.model_name} has not forgotten anything yet: there is no gate to re-run.")
        return ExitCode.OK
    for check in record.checks:
        shown = "not measured" if check.bound is None else f"{check.bound:.4f}"
        print(f"{check.id:<16} {check.verdict:<12} {shown:>12} ({check.bound_kind} bound; threshold {check.threshold:g})  {check.title}")
    print(f"deployed version {record.version} of {record.name}:", end=" ")
    return verdict_code(record.verdict)
