"""The whole pipeline: here, or on Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erasediff.cli.app import app
from erasediff.cli.inputs import open_workdir, print_outcome, read_config, read_dataset, read_policy, read_request, regate_here, run_here
from erasediff.cli.options import (
    WORKDIR,
    ConfigOption,
    DatasetOption,
    ExperimentOption,
    HostOption,
    LabelOption,
    NamespaceOption,
    NumberOption,
    PolicyOption,
    ProfileOption,
    RequestsOption,
    SeedOption,
    ServiceAccountOption,
    TierOption,
    WorkdirOption,
)
from erasediff.errors import ExitCode

if TYPE_CHECKING:
    from erasediff.records.config import RunConfig


@app.command()
def demo(workdir: WorkdirOption = WORKDIR, forget_label: LabelOption = "0", seed: SeedOption = None, tier: TierOption = None) -> int:
    """Erase a digit from a model of handwritten digits: train once, then from a request to its certificate through the pipeline."""
    from erasediff.demo import file_request, own_key

    config = read_config(None, seed)
    public = config.report.model_copy(update={"show_forgotten": True})  # the digits are public data
    config, policy = config.model_copy(update={"report": public}), read_policy(None, tier)
    own_key(open_workdir(workdir))
    file_request(open_workdir(workdir), read_request(config, forget_label))
    return run_here(workdir, config, policy, forget_label)


@app.command()
def run(
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    policy: PolicyOption = None,
    dataset: DatasetOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    tier: TierOption = None,
) -> int:
    """Run the erasure pipeline on a dataset of your own."""
    return run_here(workdir, _configured(config, seed, dataset), read_policy(policy, tier), forget_label)


def _configured(config: Path | None, seed: int | None, dataset: str | None) -> RunConfig:
    found = read_config(config, seed)
    return found if dataset is None else found.model_copy(update=read_dataset(dataset, found))


@app.command()
def process(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    dataset: DatasetOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    tier: TierOption = None,
) -> int:
    """Do what the ledger's requests ask of a model, several classes in one run; where they ask nothing, ask the model that serves again.

    A class that does not pass is left out, and the others of its run go again without it. The exit code is that of the first class that is left.
    """
    from erasediff.launch import exit_code, run_pipeline
    from erasediff.records.nouns import ErasureRequest, Outcome
    from erasediff.steps.batches import held_back, next_batch

    configured, decided, opened = _configured(config, seed, dataset), read_policy(policy, tier), open_workdir(workdir)
    tried, codes = set[ErasureRequest](), dict[ErasureRequest, ExitCode]()
    while batch := next_batch(opened, configured.dataset.name, tried):
        first = run_pipeline(opened, batch, configured, decided)
        others = () if first.attempt is None else opened.run().others()
        for outcome in (first, *(Outcome.read(other.folder / "outcome.json") for other in others)):
            print(f"class {outcome.forget.label} of {configured.dataset.name}:")
            print_outcome(outcome, workdir)
            codes[ErasureRequest(dataset=configured.dataset.name, label=outcome.forget.label)] = exit_code(outcome)
        tried |= (set(batch) - held_back(opened, batch)) or set(batch)
    if not codes:
        print(f"nothing is asked of {configured.dataset.name}: no request waits that is decided and not held.")
        return regate_here(opened, configured, decided)
    return next((code for code in codes.values() if code), ExitCode.OK)


@app.command()
def regate(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    dataset: DatasetOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
) -> int:
    """Ask the model that serves again, by images that nobody could have computed before, for what it has forgotten."""
    return regate_here(open_workdir(workdir), _configured(config, seed, dataset), read_policy(policy, None))


@app.command()
def submit(
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    label_number: NumberOption = None,
    requests: RequestsOption = False,
    policy: PolicyOption = None,
    seed: SeedOption = None,
    tier: TierOption = None,
    profile: ProfileOption = "gpu",
    host: HostOption = None,
    namespace: NamespaceOption = None,
    experiment: ExperimentOption = "erasediff",
    service_account: ServiceAccountOption = None,
) -> int:
    """Run the pipeline on Kubeflow Pipelines; the token is in ERASEDIFF_KFP_TOKEN."""
    from erasediff.submit import backend, request_for, submission
    from erasediff.submit import submit as hand_in

    where, configured = backend(host, namespace, experiment, service_account), read_config(config, seed)
    named = None if requests else request_for(configured, forget_label, label_number)
    asked = submission(where, profile, named, configured, read_policy(policy, tier))
    done = hand_in(asked)
    print(f"run {done.run_id} of {asked.pipeline}, version {asked.version}{' (uploaded)' if done.uploaded else ''}: {asked.name}")
    return ExitCode.OK


@app.command()
def schedule(
    cron: Annotated[str, typer.Option("--cron", help="When: six fields, seconds first, such as '0 0 3 * * *'.")],
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    label_number: NumberOption = None,
    requests: RequestsOption = False,
    policy: PolicyOption = None,
    seed: SeedOption = None,
    tier: TierOption = None,
    profile: ProfileOption = "gpu",
    host: HostOption = None,
    namespace: NamespaceOption = None,
    experiment: ExperimentOption = "erasediff",
    service_account: ServiceAccountOption = None,
) -> int:
    """Run the pipeline on Kubeflow Pipelines again and again, one run at a time; a schedule of the same class is replaced."""
    from erasediff.submit import backend, request_for, submission
    from erasediff.submit import schedule as hand_in

    where, configured = backend(host, namespace, experiment, service_account), read_config(config, seed)
    named = None if requests else request_for(configured, forget_label, label_number)
    asked = submission(where, profile, named, configured, read_policy(policy, tier), cron)
    done = hand_in(asked)
    print(f"schedule {done.schedule_id} is {done.change}: {asked.name}, {asked.cron}, with {asked.pipeline} {asked.version}")
    return ExitCode.OK
