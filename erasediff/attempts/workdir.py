"""The workdir: the folder of attempts, their records and their files.

Inside a workdir:

    outcome.json, report.html       of the latest run
    models/<weights digest>/        model folders by content
    detectors/<digest>.safetensors  detectors by the digest of their inputs
    runs/<request>-<attempt>/       one attempt: config.json, policy.json, evaluation.key, records, curves, report
    promotions.jsonl                every promotion, append-only
    tries.jsonl                     every verdict, append-only
    ledger.db                       requests and their events, if no other ledger is set
    keys/<request>.key              the key of the commitments to a request's forget set; the purge destroys it
    rules.json                      serving rules: revoked digests and suppressed labels
    revocations/<key>.json          revoked digests and the minimum epoch, signed for servers
    forget-remote/<request>/        forget sets, if no DVC remote is configured
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from erasediff.attempts.attempt import KEY, Attempt
from erasediff.errors import BadInput, explain_os_error
from erasediff.files import write_atomic
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ErasureRequest, PlanRecord
from erasediff.records.policy import GatePolicy
from erasediff.steps.table import CHECKPOINT, Role, step_for

LAUNCH_PREFIX = ".launch-"
"""The prefix of temporary folders that a local run of the compiled pipeline uses."""


@dataclass(frozen=True)
class Workdir:
    """A workdir."""

    root: Path

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
            sentence = explain_os_error(error, root)
            raise sentence or BadInput(f"the workdir {root} cannot be used ({error.strerror}): choose another.") from None
        return cls(root)

    @property
    def models(self) -> Path:
        """Model folders, named by the digest of their weights."""
        return self.root / "models"

    @property
    def detectors(self) -> Path:
        """Detectors, named by the digest of what they were made from."""
        return self.root / "detectors"

    @property
    def runs(self) -> Path:
        """One folder per attempt."""
        return self.root / "runs"

    @property
    def promotions(self) -> Path:
        """The append-only list of promotions."""
        return self.root / "promotions.jsonl"

    @property
    def tries(self) -> Path:
        """The append-only list of verdicts."""
        return self.root / "tries.jsonl"

    @property
    def rules(self) -> Path:
        """The serving rules: digests that purges revoked and labels that requests suppressed."""
        return self.root / "rules.json"

    def revocations(self, key_id: str) -> Path:
        """The list of revocations that a key signed; each key has its own list."""
        return self.root / "revocations" / f"{key_id[:16]}.json"

    @property
    def keys(self) -> Path:
        """One key per request."""
        return self.root / "keys"

    def request_key(self, request: ErasureRequest) -> Path:
        """The path of the key of the commitments to a request's forget set."""
        return self.keys / f"{request.digest()[:16]}.key"

    @property
    def batch_file(self) -> Path:
        """The file with the requests that a run took from the ledger."""
        return self.root / "asked.json"

    @property
    def outcome(self) -> Path:
        """The latest run's outcome."""
        return self.root / "outcome.json"

    @property
    def report(self) -> Path:
        """The latest run's report."""
        return self.root / "report.html"

    @property
    def current(self) -> Path:
        """The file that names the attempt that was opened last."""
        return self.runs / "current"

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
        return Attempt(self, folder)

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
