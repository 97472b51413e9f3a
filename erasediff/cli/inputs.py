"""From what was typed to records, and from records to what is printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from erasediff.environment import is_main_process
from erasediff.errors import ExitCode

if TYPE_CHECKING:
    from erasediff.evidence.purge.engine import Purged
    from erasediff.records.config import RunConfig
    from erasediff.records.nouns import ErasureRequest, Outcome
    from erasediff.records.policy import GatePolicy
    from erasediff.records.workdir import Run, Workdir

SHIPPED_POLICIES = ("class-conditional", "class-conditional-strict")


def open_workdir(path: Path) -> Workdir:
    """The workdir, made if missing."""
    from erasediff.records.workdir import Workdir

    return Workdir.open(path)


def read_config(path: Path | None, seed: int | None) -> RunConfig:
    """The configuration of a file, or the demo's."""
    from erasediff.records.config import RunConfig, load_config

    config = RunConfig() if path is None else load_config(path)
    return config if seed is None else RunConfig.parse(config.model_dump() | {"seed": seed}, "--seed")


def read_policy(path: Path | None, tier: int | None) -> GatePolicy:
    """A shipped policy by its name, or that of a file."""
    from erasediff.launch import shipped
    from erasediff.records.policy import load_policy

    name = "class-conditional" if path is None else str(path)
    policy = load_policy(shipped(f"policies/{name}.yaml") if name in SHIPPED_POLICIES else Path(name))
    return policy if tier is None else policy.model_copy(update={"tier": tier})


def read_dataset(text: str, config: RunConfig) -> dict[str, object]:
    """What ``--dataset`` changes in a configuration."""
    from erasediff.records.config import DatasetConfig

    kind, separator, path = text.partition(":")
    if not separator:
        fields: dict[str, object] = {"name": kind, "kind": kind}
    else:
        name = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(path).resolve().name)
        fields = {"kind": kind, "path": str(Path(path).resolve()), "name": name}
        if config.dataset.kind == kind:
            fields = config.dataset.model_dump() | {"path": fields["path"]}
    parsed = DatasetConfig.parse(fields, "--dataset")
    return {"dataset": parsed, "model_name": config.model_name if config.dataset.name == parsed.name else parsed.name}


def read_request(config: RunConfig, label: str) -> ErasureRequest:
    """The request to forget a class, by its name or number."""
    from erasediff.data.datasets import load_dataset
    from erasediff.records.nouns import ErasureRequest

    dataset = load_dataset(config.dataset)
    return ErasureRequest(dataset=dataset.name, label=dataset.label_index(label))


def run_here(path: Path, config: RunConfig, policy: GatePolicy, label: str) -> int:
    """Run the compiled pipeline on this machine."""
    from erasediff.launch import exit_code, run_pipeline

    workdir = open_workdir(path)
    outcome = run_pipeline(workdir, (read_request(config, label),), config, policy)
    print_outcome(outcome, path)
    return exit_code(outcome)


def regate_here(workdir: Workdir, config: RunConfig, policy: GatePolicy) -> int:
    """Judge the model that serves once more."""
    from erasediff.steps.regate import regate

    record = regate(workdir, config, policy)
    if record is None:
        print(f"no champion of {config.model_name} has forgotten anything: there is nothing to ask it again.")
        return ExitCode.OK
    for check in record.checks:
        shown = "not measured" if check.bound is None else f"{check.bound:.4f}"
        print(f"{check.id:<16} {check.verdict:<12} {shown:>12} ({check.bound_kind} bound; threshold {check.threshold:g})  {check.title}")
    print(f"version {record.version} of {record.name}, as it serves:", end=" ")
    return verdict_code(record.verdict)


def perform_step(step: str, path: Path, run: str | None) -> int:
    """Perform one step of an attempt."""
    from erasediff.steps.runner import perform

    attempt: Run = open_workdir(path).run(run)
    record = perform(step, attempt)
    if is_main_process():
        print(f"{step}: {attempt.path(type(record))}")
    return ExitCode.OK


def verdict_code(verdict: str) -> int:
    """Print a verdict and return its exit code."""
    print(verdict)
    return {"PASS": ExitCode.OK, "FAIL": ExitCode.GATE_FAIL}.get(verdict, ExitCode.GATE_INCONCLUSIVE)


def print_purge(found: Purged) -> int:
    """Say what a purge would delete and keep, by store and kind, and what it could not look into."""
    for line in found.lines:
        why = f" ({line.verified})" if line.action == "kept" else ""
        print(f"{line.store:<20} {line.action:<8} {line.count:>7}  {line.what}{why}")
    for entry in found.unfinished:
        print(f"erasediff purge: {entry.store}: {entry.reason}", file=sys.stderr)
    return ExitCode.UNFINISHED if found.unfinished else ExitCode.OK


def print_outcome(outcome: Outcome, workdir: Path) -> None:
    """Say how a run went."""
    if outcome.error is not None:
        print(f"erasediff {outcome.error.step}: {outcome.error.message}", file=sys.stderr)
    if outcome.verdict is not None:
        forget = outcome.forget
        upper = "not measured" if forget.upper is None else f"upper bound {forget.upper:.2%}"
        print(f"{outcome.verdict}: {forget.detections} of {forget.n} samples of the forgotten class were detected ({upper})")
    if outcome.champion is not None:
        print(f"champion of {outcome.champion.name} is now version {outcome.champion.version}")
    if outcome.report is not None:
        print(f"report: {workdir / outcome.report}")
    if outcome.certificate is not None:
        print(f"certificate: {workdir / outcome.certificate}, to be checked with the public key {workdir / str(outcome.public_key)}")
