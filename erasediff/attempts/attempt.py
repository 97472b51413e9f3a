"""An attempt at a request: a folder with its plan, the documents that the plan names, and the records of its steps."""

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
from erasediff.records.base import Record, Strict
from erasediff.records.config import RunConfig
from erasediff.records.core import PlanRecord
from erasediff.records.policy import GatePolicy
from erasediff.steps.table import maker_of

if TYPE_CHECKING:
    from erasediff.attempts.workdir import Workdir

R = TypeVar("R", bound=Record)
T = TypeVar("T")

KEY = "evaluation.key"
FORMER = "former"
"""What a migrated plan is made from: the plan of before, which told the class by its position."""
GRIDS = ("samples.npz", "samples.remaining.npz")
"""Files with a few samples for the report: as measured, and as a purge left them. The second one wins."""


def kind_name(kind: type[Strict]) -> str:
    """The name of a kind of record or document in ``made_from``, such as ``forget_set`` or ``config``."""
    bare = kind.__name__.removesuffix("Record").removeprefix("Run").removeprefix("Gate")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", bare).lower()


def record_file(kind: type[Record]) -> str:
    """The file name of an attempt's record of this kind."""
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
        """The plan, fixed before anything ran."""
        return PlanRecord.read(self.folder / "plan.json")

    @property
    def of_former_version(self) -> bool:
        """Whether an earlier version of EraseDiff opened it, so that it is kept for the purge and is not continued."""
        return FORMER in self.plan().made_from

    def config(self) -> RunConfig:
        """The run's configuration, as of when the attempt was opened.

        Raises:
            IntegrityError: it has changed since.
        """
        config = RunConfig.read(self.folder / "config.json")
        return self._as_planned(config, config.digest(), self.plan().config_digest, "config.json")

    def policy(self) -> GatePolicy:
        """The gate's policy, as of before the erasure.

        Raises:
            IntegrityError: it has changed since.
        """
        policy = GatePolicy.read(self.folder / "policy.json")
        return self._as_planned(policy, policy.digest(), self.plan().policy_digest, "policy.json")

    def evaluation_key(self) -> bytes:
        """The key of the evaluation seeds; the plan holds a commitment to it.

        Raises:
            IntegrityError: it is missing or another one.
        """
        path = self.folder / KEY
        key = path.read_bytes() if path.is_file() else b""
        return self._as_planned(key, sha256_bytes(key), self.plan().seed_commitment, KEY)

    def _as_planned(self, found: T, digest: str, planned: str, name: str) -> T:
        if digest != planned:
            raise IntegrityError(f"{name} of run {self.name} is not the one it was opened with: restore it, or use another --run.")
        return found

    def path(self, kind: type[Record]) -> Path:
        """The path of a record of this kind."""
        return self.folder / record_file(kind)

    def find(self, kind: type[R]) -> R | None:
        """The record, or ``None`` if its step has not finished."""
        path = self.path(kind)
        return kind.read(path) if path.is_file() else None

    def need(self, kind: type[R]) -> R:
        """The record of an earlier step.

        Raises:
            BadInput: that step has not finished.
        """
        record = self.find(kind)
        if record is None:
            raise BadInput(f"run {self.name} has no {self.path(kind).name}: run `erasediff {maker_of(kind).command}` first.")
        return record

    def digest_of(self, kind: type[Strict]) -> str:
        """The digest of an earlier step's record, or of a document that the plan names.

        Raises:
            BadInput: that step has not finished.
            IntegrityError: the document has changed since.
        """
        if kind is RunConfig:
            return self.config().digest()
        if kind is GatePolicy:
            return self.policy().digest()
        assert issubclass(kind, Record)
        return self.need(kind).digest()

    def made(self, kind: type[R], made_from: dict[str, str], make: Callable[[], R]) -> R:
        """The existing record of this kind if it was made from exactly these digests, else a new one.

        A record made from other digests is stale and is replaced.
        """
        present = self.find(kind)
        if present is not None and present.made_from == made_from:
            return present
        record = make().model_copy(update={"made_from": made_from})
        record.write(self.path(kind))
        return record

    def detector(self) -> Path:
        """The path of the trained classifier; attempts with the same dataset and configuration share it."""
        return self.workdir.detector(self.plan().made_from["dataset"], self.config())

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for forget images. It is removed at the end; leftovers of a killed step are removed first."""
        folder = self.folder / f".scratch{os.environ.get('RANK', '')}"  # one per process under torchrun
        with explain_disk_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
