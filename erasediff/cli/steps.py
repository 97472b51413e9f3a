"""One subcommand a step of the pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from erasediff.cli.app import app
from erasediff.cli.inputs import open_workdir, perform_step, print_outcome, print_purge, read_config, read_policy, read_request, verdict_code
from erasediff.cli.options import WORKDIR, ConfigOption, LabelOption, PolicyOption, RunOption, SeedOption, TierOption, WorkdirOption
from erasediff.errors import ExitCode


@app.command("train-base")
def train_base(config: ConfigOption = None, workdir: WorkdirOption = WORKDIR, seed: SeedOption = None, run: RunOption = None) -> int:
    """Train a base model and register it as champion, if the registry has none; with --run, pin it for that attempt."""
    if run is not None:
        return perform_step("train_base", workdir, run)
    from erasediff.steps.train_base import ensure_champion

    base = ensure_champion(open_workdir(workdir), read_config(config, seed))
    print(f"champion of {base.name} is version {base.version}, weights {base.model.weights.sha256[:12]}")
    return ExitCode.OK


@app.command("check-prerequisites")
def check_prerequisites(
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    policy: PolicyOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    run: RunOption = None,
    tier: TierOption = None,
) -> int:
    """Check everything a run needs and open an attempt."""
    from erasediff.steps.runner import open_attempt

    configured, demanded = read_config(config, seed), read_policy(policy, tier)
    request = read_request(configured, forget_label)
    documents = [document.canonical().decode() for document in (request, configured, demanded)]
    opened = open_attempt(open_workdir(workdir), documents[0], documents[1], documents[2], run)
    print(f"attempt {opened.name} is open")
    return ExitCode.OK


@app.command("version-forget-set")
def version_forget_set(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Split the dataset, version the forget set with DVC and push it."""
    return perform_step("version_forget_set", workdir, run)


@app.command()
def erase(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Make the base forget; goes on from the last checkpoint."""
    return perform_step("erase", workdir, run)


@app.command()
def evaluate(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Sample base and erased model and measure what the policy asks about."""
    return perform_step("evaluate", workdir, run)


@app.command()
def gate(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Decide PASS (0), FAIL (10) or INCONCLUSIVE (11)."""
    code = perform_step("gate", workdir, run)
    if code:
        return code
    from erasediff.records.nouns import VerdictRecord

    return verdict_code(str(open_workdir(workdir).run(run).need(VerdictRecord, "gate").verdict))


@app.command("export-onnx")
def export_onnx(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Export the erased model to ONNX and measure the graph: PASS (0), FAIL (10) or INCONCLUSIVE (11)."""
    code = perform_step("export_onnx", workdir, run)
    if code:
        return code
    from erasediff.records.nouns import ExportedRecord

    return verdict_code(str(open_workdir(workdir).run(run).need(ExportedRecord, "export-onnx").verdict))


@app.command()
def register(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Register the model that passed in MLflow as challenger."""
    return perform_step("register", workdir, run)


@app.command("roll-out")
def roll_out(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Bring the exported model up beside the champion, where ERASEDIFF_ROLL_OUT_BACKEND says how; it serves, or is rolled back (12)."""
    return perform_step("roll_out", workdir, run)


@app.command()
def promote(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Make the challenger the champion."""
    return perform_step("promote", workdir, run)


@app.command()
def purge(
    workdir: WorkdirOption = WORKDIR,
    run: RunOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, by store and kind; change nothing.")] = False,
) -> int:
    """Delete what was forgotten, wherever it lies, and show that it is gone; goes on where it was, and ends with 13 while anything is left."""
    if not dry_run:
        return perform_step("purge", workdir, run)
    from erasediff.steps.purge import preview

    return print_purge(preview(open_workdir(workdir).run(run)))


@app.command("record-outcome")
def record_outcome(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Write outcome.json and report.html of an attempt."""
    from erasediff.steps.record_outcome import record_outcome as record

    print_outcome(record(open_workdir(workdir).run(run)), workdir)
    return ExitCode.OK
