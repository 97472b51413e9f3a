"""The workdir: where runs, their records and the bytes they point to lie.

Inside a workdir:

    outcome.json, report.html       of the latest run
    models/<weights digest>/        model folders by content
    detectors/<digest>.safetensors  detectors by what they were made from
    runs/<request>-<attempt>/       one attempt: config.json, policy.json, evaluation.key, records, curves, report
    promotions.jsonl                every promotion, only ever added to
    tries.jsonl                     every verdict, only ever added to
    ledger.db                       requests and their events, where no other ledger is set
    keys/<request>.key              what the commitments to a request's forget set are keyed by; the purge destroys it
    rules.json                      what must not be served: digests that were revoked, labels that are suppressed
    revocations/<key>.json          the same digests and the least epoch, signed for whoever serves
    forget-remote/<request>/        forget sets, where no DVC remote is configured
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from erasediff.errors import BadInput, IntegrityError, explain_os_error
from erasediff.files import explained, sha256_bytes, write_atomic
from erasediff.records.base import Record, canonical_json
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ErasureRequest, PlanRecord
from erasediff.records.policy import GatePolicy

R = TypeVar("R", bound=Record)
T = TypeVar("T")

CHECKPOINT = "checkpoint.safetensors"
KEY = "evaluation.key"
GRIDS = ("samples.npz", "samples.remaining.npz")
"""A few samples for the report: as they were measured, and as a purge left them. The second is looked at where both are there."""
LAUNCH_PREFIX = ".launch-"
"""Of folders in the workdir that a run of the pipeline on this machine uses while it lives."""


@dataclass(frozen=True)
class Workdir:
    """A folder that a run may write to."""

    root: Path

    @classmethod
    def open(cls, path: str | Path) -> Workdir:
        """Make the folder if it is missing and make sure that it can be written.

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
        """One folder an attempt."""
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
        """Rules with every digest that a purge revoked, and every label that a request suppressed."""
        return self.root / "rules.json"

    def revocations(self, key_id: str) -> Path:
        """The list of revocations that a key has signed; another key begins another list."""
        return self.root / "revocations" / f"{key_id[:16]}.json"

    @property
    def keys(self) -> Path:
        """One key a request."""
        return self.root / "keys"

    def request_key(self, request: ErasureRequest) -> Path:
        """Where the key lies that the commitments to a request's forget set are made with."""
        return self.keys / f"{request.digest()[:16]}.key"

    @property
    def asked(self) -> Path:
        """The requests that a run took from the ledger, where it was not handed one."""
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
        """The file that names the attempt opened last."""
        return self.runs / "current"

    def run(self, name: str | None = None) -> Run:
        """The named attempt, or the one opened last.

        Raises:
            BadInput: there is no such attempt.
        """
        if name is None:
            if not self.current.is_file():
                raise BadInput(f"no run was opened in {self.root}: run `erasediff check-prerequisites` first.")
            name = self.current.read_text().strip()
        folder = self.runs / name
        if Path(name).name != name or not (folder / "plan.json").is_file():
            raise BadInput(f"there is no run {name!r} in {self.root}: run `erasediff check-prerequisites` first.")
        return Run(self, folder)

    def all_attempts(self) -> list[Run]:
        """Every attempt at any request, by name."""
        return [Run(self, path.parent) for path in sorted(self.runs.glob("*/plan.json"))]

    def attempts(self, request_digest: str) -> list[Run]:
        """All attempts at a request, first to last, whatever they were named."""
        asked = [(run.plan().attempt, run.folder) for run in self.all_attempts() if run.plan().request.digest() == request_digest]
        return [Run(self, folder) for _, folder in sorted(asked)]

    def open_run(self, plan: PlanRecord, config: RunConfig, policy: GatePolicy, key: bytes) -> Run:
        """Write an attempt's plan with the documents it quotes and the key it commits to, and make it the current one.

        Of a batch the first attempt is opened last: where its plan lies, those of the others do too.
        """
        folder = self.runs / plan.run
        (folder / CHECKPOINT).unlink(missing_ok=True)  # of another plan under the same name
        write_atomic(folder / KEY, key, mode=0o600)
        config.write(folder / "config.json")
        policy.write(folder / "policy.json")
        plan.write(folder / "plan.json")
        return self.select(Run(self, folder))

    def select(self, run: Run) -> Run:
        """Make an attempt the current one."""
        write_atomic(self.current, f"{run.name}\n".encode())
        return run


@dataclass(frozen=True)
class Run:
    """One attempt's folder."""

    workdir: Workdir
    folder: Path

    @property
    def name(self) -> str:
        """The attempt's name."""
        return self.folder.name

    def plan(self) -> PlanRecord:
        """What was fixed before anything ran."""
        return PlanRecord.read(self.folder / "plan.json")

    def batch(self) -> tuple[Run, ...]:
        """The attempts whose requests are erased together, the earliest due first; this one alone where there is no other."""
        return tuple(Run(self.workdir, self.workdir.runs / name) for name in self.plan().batch) or (self,)

    def requests(self) -> tuple[ErasureRequest, ...]:
        """What the batch erases; empty where one of its attempts was never opened."""
        batch = self.batch()
        opened = all((one.folder / "plan.json").is_file() for one in batch)
        return tuple(one.plan().request for one in batch) if opened else ()

    @property
    def lead(self) -> Run:
        """The batch's first attempt: what is done once for all of them is done there."""
        return self.batch()[0]

    def others(self) -> tuple[Run, ...]:
        """The batch without this attempt."""
        return tuple(one for one in self.batch() if one.name != self.name)

    def config(self) -> RunConfig:
        """The run's configuration, as it was when the attempt was opened.

        Raises:
            IntegrityError: it was changed since.
        """
        config = RunConfig.read(self.folder / "config.json")
        return self._as_planned(config, config.digest(), self.plan().config_digest, "config.json")

    def policy(self) -> GatePolicy:
        """The gate's policy, as it was registered before the erasure.

        Raises:
            IntegrityError: it was changed since.
        """
        policy = GatePolicy.read(self.folder / "policy.json")
        return self._as_planned(policy, policy.digest(), self.plan().policy_digest, "policy.json")

    def evaluation_key(self) -> bytes:
        """The key of the evaluation seeds that the plan commits to.

        Raises:
            IntegrityError: it is another one, or gone.
        """
        path = self.folder / KEY
        key = path.read_bytes() if path.is_file() else b""
        return self._as_planned(key, sha256_bytes(key), self.plan().seed_commitment, KEY)

    def detector(self) -> Path:
        """Where the classifier lies that is trained for this attempt's dataset and configuration; others of the same share it."""
        config = self.config()
        made_from = {"dataset": self.plan().made_from["dataset"], "detector": config.detector.digest(), "split": config.dataset.digest()}
        return self.workdir.detectors / f"{sha256_bytes(canonical_json(made_from))[:16]}.safetensors"

    def _as_planned(self, found: T, digest: str, planned: str, name: str) -> T:
        if digest != planned:
            raise IntegrityError(f"{name} of run {self.name} is not the one it was opened with: put it back, or run the command under another --run.")
        return found

    def path(self, kind: type[Record]) -> Path:
        """Where a record of this kind lies."""
        return self.folder / f"{kind.__name__.removesuffix('Record').lower()}.json"

    def find(self, kind: type[R]) -> R | None:
        """The record, or ``None`` if its step has not ended yet."""
        path = self.path(kind)
        return kind.read(path) if path.is_file() else None

    def need(self, kind: type[R], step: str) -> R:
        """The record of an earlier step.

        Raises:
            BadInput: that step has not ended.
        """
        record = self.find(kind)
        if record is None:
            raise BadInput(f"run {self.name} has no {self.path(kind).name}: run `erasediff {step}` first.")
        return record

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for forget images, removed at the end; what a killed step left in it is removed first."""
        folder = self.folder / f".scratch{os.environ.get('RANK', '')}"  # one a process, under torchrun
        with explained(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder)

    def made(self, kind: type[R], made_from: dict[str, str], make: Callable[[], R]) -> R:
        """The record of this kind made from exactly these digests: the one that is there, or a new one.

        A record made from something else is stale and is replaced.
        """
        present = self.find(kind)
        if present is not None and present.made_from == made_from:
            return present
        record = make().model_copy(update={"made_from": made_from})
        record.write(self.path(kind))
        return record
