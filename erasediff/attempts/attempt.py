"""What an attempt at a request is: a folder with its plan, the documents that the plan quotes, and the records of its steps."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from erasediff.errors import BadInput, IntegrityError
from erasediff.files import explain_disk_errors, sha256_bytes
from erasediff.records.base import Record, Strict, canonical_json
from erasediff.records.config import RunConfig
from erasediff.records.nouns import PlanRecord
from erasediff.records.policy import GatePolicy
from erasediff.steps.table import maker_of

if TYPE_CHECKING:
    from erasediff.attempts.workdir import Workdir

R = TypeVar("R", bound=Record)
T = TypeVar("T")

KEY = "evaluation.key"
GRIDS = ("samples.npz", "samples.remaining.npz")
"""A few samples for the report: as they were measured, and as a purge left them. The second is looked at where both are there."""


def kind_name(kind: type[Strict]) -> str:
    """What a kind of record or document is called in ``made_from``, such as ``forget_set`` or ``config``."""
    bare = kind.__name__.removesuffix("Record").removeprefix("Run").removeprefix("Gate")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", bare).lower()


def record_file(kind: type[Record]) -> str:
    """The name of the file that holds an attempt's record of a kind."""
    return f"{kind.__name__.removesuffix('Record').lower()}.json"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a request."""

    workdir: Workdir
    folder: Path

    @property
    def name(self) -> str:
        """The attempt's name."""
        return self.folder.name

    def plan(self) -> PlanRecord:
        """What was fixed before anything ran."""
        return PlanRecord.read(self.folder / "plan.json")

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

    def _as_planned(self, found: T, digest: str, planned: str, name: str) -> T:
        if digest != planned:
            raise IntegrityError(f"{name} of run {self.name} is not the one it was opened with: put it back, or run the command under another --run.")
        return found

    def path(self, kind: type[Record]) -> Path:
        """Where a record of this kind lies."""
        return self.folder / record_file(kind)

    def find(self, kind: type[R]) -> R | None:
        """The record, or ``None`` if its step has not ended yet."""
        path = self.path(kind)
        return kind.read(path) if path.is_file() else None

    def need(self, kind: type[R]) -> R:
        """The record of an earlier step.

        Raises:
            BadInput: that step has not ended.
        """
        record = self.find(kind)
        if record is None:
            raise BadInput(f"run {self.name} has no {self.path(kind).name}: run `erasediff {maker_of(kind).command}` first.")
        return record

    def digest_of(self, kind: type[Strict]) -> str:
        """The digest of a record that an earlier step made, or of a document that the plan quotes.

        Raises:
            BadInput: that step has not ended.
            IntegrityError: the document was changed since.
        """
        if kind is RunConfig:
            return self.config().digest()
        if kind is GatePolicy:
            return self.policy().digest()
        assert issubclass(kind, Record)
        return self.need(kind).digest()

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

    def detector(self) -> Path:
        """Where the classifier lies that is trained for this attempt's dataset and configuration; others of the same share it."""
        config = self.config()
        made_from = {"dataset": self.plan().made_from["dataset"], "detector": config.detector.digest(), "split": config.dataset.digest()}
        return self.workdir.detectors / f"{sha256_bytes(canonical_json(made_from))[:16]}.safetensors"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for forget images, removed at the end; what a killed step left in it is removed first."""
        folder = self.folder / f".scratch{os.environ.get('RANK', '')}"  # one a process, under torchrun
        with explain_disk_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
