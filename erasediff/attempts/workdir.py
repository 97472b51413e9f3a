"""The workdir: the folder of attempts, their records and their files.

Inside a workdir:

    outcome.json, report.html       of the latest run
    models/<weights digest>/        model folders by content
    detectors/<digest>.safetensors  detectors by the digest of their inputs
    runs/<request>-<attempt>/       one attempt: config.json, policy.json, evaluation.key, records, curves, report
    promotions.jsonl                every promotion, append-only
    tries.jsonl                     every verdict, append-only
    under-way.json                  the Kubeflow run that has the workdir
    ledger.db                       requests and their events, if no other ledger is set
    keys/<request>.key              the key of the commitments to a request's forget set; the purge destroys it
    rules.json                      serving rules: revoked digests and suppressed classes
    revocations/<key>.json          revoked digests and the minimum epoch, signed for servers
    forget-remote/<request>/        forget sets, if no DVC remote is configured
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from erasediff.attempts.attempt import KEY, Attempt
from erasediff.environment import in_pod
from erasediff.errors import BadInput, explain_os_error
from erasediff.files import sha256_bytes, write_atomic
from erasediff.records.base import canonical_json
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, PlanRecord
from erasediff.records.policy import GatePolicy
from erasediff.steps.table import CHECKPOINT, Role, step_for

LAUNCH_PREFIX = ".launch-"
"""The prefix of temporary folders that a local run of the compiled pipeline uses."""
FETCHED_PREFIX = ".fetched-"
"""The prefix of temporary folders for registered models that are fetched to be judged or rolled out again."""


class _Place:
    """A path in the workdir."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, workdir: Workdir, owner: type[Workdir]) -> Path:
        return workdir.root / self._name


@dataclass(frozen=True)
class Workdir:
    """A workdir."""

    root: Path
    models = _Place("models")
    """Model folders, named by the digest of their weights."""
    detectors = _Place("detectors")
    """Detectors, named by the digest of what they were made from."""
    runs = _Place("runs")
    """One folder an attempt."""
    promotions = _Place("promotions.jsonl")
    """The append-only list of promotions."""
    tries = _Place("tries.jsonl")
    """The append-only list of verdicts."""
    rules = _Place("rules.json")
    """Rules with every digest that a purge revoked, and every class that a request suppressed."""
    keys = _Place("keys")
    """One key a request."""
    batch_file = _Place("asked.json")
    """The requests of a run on Kubeflow, with the names of their classes."""
    outcome = _Place("outcome.json")
    """The latest run's outcome."""
    report = _Place("report.html")
    """The latest run's report."""
    under_way = _Place("under-way.json")
    """The Kubeflow run that has the workdir, or had it last."""
    current = _Place("runs/current")
    """The file that names the attempt opened last."""

    @classmethod
    def open(cls, path: str | Path) -> Workdir:
        """Create the folder if it is missing and check that it is writable.

        Raises:
            BadInput: it is not a folder, or cannot be written.
        """
        root = Path(path).expanduser().absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except (FileExistsError, NotADirectoryError):
            raise BadInput(f"the workdir {root} is not a folder: choose another --workdir.") from None
        except OSError as error:
            if in_pod() and isinstance(error, PermissionError):
                raise BadInput(
                    f"there is no permission to write {root}: create the Job erasediff-prepare-workdir of manifests/once, "
                    "which gives the volume to the steps' group."
                ) from None
            sentence = explain_os_error(error, root)
            raise sentence or BadInput(f"the workdir {root} cannot be used ({error.strerror}): choose another.") from None
        return cls(root)

    def revocations(self, key_id: str) -> Path:
        """The list of revocations that a key signed; each key has its own list."""
        return self.root / "revocations" / f"{key_id[:16]}.json"

    def request_key(self, request: ErasureRequest) -> Path:
        """The path of the key of the commitments to a request's forget set."""
        return self.keys / f"{request.digest()[:16]}.key"

    def detector(self, dataset_digest: str, config: RunConfig) -> Path:
        """The path of the classifier that is trained for a dataset and a configuration."""
        made_from = {"dataset": dataset_digest, "detector": config.detector.digest(), "split": config.dataset.digest()}
        return self.detectors / f"{sha256_bytes(canonical_json(made_from))[:16]}.safetensors"

    def attempt(self, name: str | None = None) -> Attempt:
        """The named attempt, or the one that was opened last.

        Raises:
            BadInput: there is no such attempt.
        """
        first = f"run `erasediff {step_for(Role.OPENS).command}` first."
        if name is None:
            if not self.current.is_file():
                raise BadInput(f"no run was opened in {self.root}: {first}")
            name = self.current.read_text().strip()
        folder = self.runs / name
        if Path(name).name != name or not (folder / "plan.json").is_file():
            raise BadInput(f"there is no run {name!r} in {self.root}: {first}")
        attempt = Attempt(self, folder)
        if attempt.of_former_version:
            raise BadInput(f"run {name!r} was opened by an earlier version of EraseDiff and stays as it is: open a new one with another --run.")
        return attempt

    def attempts(self) -> list[Attempt]:
        """Every attempt at any request, by name."""
        return [Attempt(self, path.parent) for path in sorted(self.runs.glob("*/plan.json"))]

    def attempts_at(self, request_digest: str) -> list[Attempt]:
        """All attempts at a request, oldest first."""
        asked = [(plan.attempt, one.folder) for one in self.attempts() if (plan := one.plan()).request.digest() == request_digest]
        return [Attempt(self, folder) for _, folder in sorted(asked)]

    def open_attempt(self, plan: PlanRecord, config: RunConfig, policy: GatePolicy, key: bytes) -> Attempt:
        """Write an attempt's plan, its documents and its key, and make it the current one.

        The lead of a batch is opened last: if its plan exists, so do those of the others.
        """
        folder = self.runs / plan.run
        (folder / CHECKPOINT).unlink(missing_ok=True)  # belongs to an earlier plan of the same name
        write_atomic(folder / KEY, key, mode=0o600)
        config.write(folder / "config.json")
        policy.write(folder / "policy.json")
        plan.write(folder / "plan.json")
        return self.select(Attempt(self, folder))

    def select(self, attempt: Attempt) -> Attempt:
        """Make an attempt the current one."""
        write_atomic(self.current, f"{attempt.name}\n".encode())
        return attempt
