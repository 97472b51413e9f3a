"""Turn options into records, and print records."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from erasediff.errors import ExitCode, Interrupted

if TYPE_CHECKING:
    from erasediff.attempts.workdir import Workdir
    from erasediff.evidence.purge.engine import Purged
    from erasediff.records.config import RunConfig
    from erasediff.records.core import ErasureRequest, Outcome, Verdict
    from erasediff.records.policy import GatePolicy


def open_workdir(path: Path) -> Workdir:
    """The workdir, made if missing."""
    from erasediff.attempts.workdir import Workdir

    return Workdir.open(path)


def read_config(path: Path | None, seed: int | None, dataset: str | None = None, resize: int | None = None) -> RunConfig:
    """The configuration from a file, or the demo's, with the changes that the options make."""
    from erasediff.records.config import DatasetConfig, RunConfig, load_config

    config = RunConfig() if path is None else load_config(path)
    changes: dict[str, object] = {} if seed is None else {"seed": seed}
    config = config.model_copy(update=changes | ({} if dataset is None else read_dataset(dataset, config)))
    if resize is None:
        return config
    return config.model_copy(update={"dataset": DatasetConfig.parse(config.dataset.model_dump() | {"size": resize}, "--resize")})


def read_policy(path: Path | None, tier: int | None) -> GatePolicy:
    """A shipped policy by its name, or the policy of a file."""
    from erasediff.records.policy import SHIPPED_POLICIES, policy_named

    policy = policy_named(SHIPPED_POLICIES[0] if path is None else str(path))
    return policy if tier is None else policy.model_copy(update={"tier": tier})


def read_dataset(text: str, config: RunConfig) -> dict[str, object]:
    """The changes that ``--dataset`` makes. The model is named after the dataset unless the configuration sets ``model_name``."""
    from erasediff.records.config import DatasetConfig, dataset_fields

    fields = dataset_fields(text)
    if "path" in fields and config.dataset.kind == fields["kind"]:
        fields = config.dataset.model_dump() | {"path": fields["path"]}
    parsed = DatasetConfig.parse(fields, "--dataset")
    return {"dataset": parsed} | ({} if "model_name" in config.model_fields_set else {"model_name": parsed.name})


def read_request(config: RunConfig, label: str) -> ErasureRequest:
    """The request to forget a class, by its name."""
    from erasediff.data.datasets import load_dataset
    from erasediff.records.core import ErasureRequest

    dataset = load_dataset(config.dataset)
    return ErasureRequest(dataset=dataset.name, label=dataset.class_called(label))


def read_classes(path: Path | None) -> tuple[str, ...] | None:
    """The names of classes in a file, a line each, in their order.

    Raises:
        BadInput: the file cannot be read, is no Unicode text, or has a blank line or a name twice.
    """
    from erasediff.errors import BadInput
    from erasediff.files import read_bounded
    from erasediff.records.base import MAX_DOCUMENT_BYTES
    from erasediff.records.names import ClassRecord, normal_name

    if path is None:
        return None
    source = f"the list of classes {path}"
    try:
        text = read_bounded(path, MAX_DOCUMENT_BYTES, "the list of classes").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{source} is not text in UTF-8: write the names so.") from None
    names = [normal_name(line) for line in re.split(r"\r\n|\r|\n", text)]
    while names and not names[-1]:  # editors end a file with a blank line
        names.pop()
    if len(names) < 2:
        raise BadInput(f"{source} names {len(names)} classes: write at least 2 names, a line each.")
    for line, name in enumerate(names, start=1):
        if not name:
            raise BadInput(f"line {line} of {source} is blank: write the name of a class there, or remove the line.")
        if (first := names.index(name) + 1) < line:
            raise BadInput(f"lines {first} and {line} of {source} name one class: write each name once.")
    return ClassRecord.parse({"class_names": names}, source).class_names


@contextmanager
def resumable() -> Iterator[None]:
    """Tell the user how to continue after Ctrl-C.

    Raises:
        Interrupted: the user pressed Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped: the work so far is kept, and the same command continues it.") from None


@contextmanager
def watched() -> Iterator[None]:
    """Show on standard error how far a single step is: bars on a terminal, else the log of the step; Ctrl-C is told as in :func:`resumable`.

    Raises:
        Interrupted: the user pressed Ctrl-C.
    """
    from erasediff.display import display
    from erasediff.logs import whole_log_to
    from erasediff.progress import shown_by

    shown = display if sys.stderr.isatty() else whole_log_to
    with resumable(), shown(sys.stderr) as viewer, shown_by(viewer):
        yield


def verdict_code(verdict: Verdict) -> int:
    """Print a verdict and return its exit code."""
    print(verdict)
    return verdict.exit_code


def print_purge(found: Purged) -> int:
    """Print what a purge would delete and keep, by store and kind, and which stores it could not read."""
    for line in found.lines:
        why = f" ({line.verified})" if line.action == "kept" else ""
        print(f"{line.store:<20} {line.action:<8} {line.count:>7}  {line.what}{why}")
    for entry in found.unfinished:
        print(f"erasediff purge: {entry.store}: {entry.reason}", file=sys.stderr)
    return ExitCode.UNFINISHED if found.unfinished else ExitCode.OK


def print_outcome(outcome: Outcome, workdir: Path) -> None:
    """Print the outcome of a run."""
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
        print(f"certificate: {workdir / outcome.certificate}; its public key: {workdir / str(outcome.public_key)}")
