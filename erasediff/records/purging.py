"""What was deleted where, and how its absence was shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from erasediff.records.base import Record, Sha256, Strict
from erasediff.records.requests import RequestId

StoreName = Literal[
    "workdir",
    "dvc remote",
    "dvc cache",
    "mlflow artifacts",
    "mlflow registry",
    "models",
    "pipeline artifacts",
    "published models",
    "owner's places",
    "keys",
]
Action = Literal["deleted", "revoked", "kept"]
MAX_REASON = 400


class PurgeLine(Strict):
    """One kind of thing in one store. ``what`` is a kind ("object versions", "sample grids"), never a name.

    ``count`` is the most that any run of this purge has found of it.
    """

    store: StoreName
    what: str = Field(max_length=120)
    action: Action
    count: int = Field(ge=0)
    verified: str = Field(max_length=200, description="how absence was shown, or why it was kept")
    at: AwareDatetime


class Unfinished(Strict):
    """A store that was not purged, and why."""

    store: StoreName
    reason: str = Field(max_length=MAX_REASON)


class PurgeRecord(Record):
    """The purge of one erasure. It is complete only if nothing is unfinished."""

    requests: tuple[RequestId, ...]
    forget_set_version: str
    revoked: tuple[Sha256, ...]
    """Digests of weights and graphs that must not be served again."""
    minimum_epoch: int = Field(ge=0)
    lines: tuple[PurgeLine, ...]
    unfinished: tuple[Unfinished, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every store was purged and its absence shown."""
        return not self.unfinished


RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class PlannedRun(Strict):
    """A run of MLflow and the artifacts that go with it: those named, or the whole run with its rows where none is named."""

    id: RunId
    artifacts: str
    parts: tuple[str, ...] = ()


class PlannedVersion(Strict):
    """A version in MLflow's registry that still knows the class."""

    name: str
    number: int = Field(ge=1)


class PurgePlan(Strict):
    """What a purge is about to delete, written down before it deletes anything: later, the rows that say so are gone."""

    revoked: tuple[Sha256, ...] = ()
    runs: tuple[PlannedRun, ...] = ()
    versions: tuple[PlannedVersion, ...] = ()


class Seen(Strict):
    """The most things of a kind that a run of the purge has found in a store."""

    store: StoreName
    what: str = Field(max_length=120)
    action: Action
    count: int = Field(ge=1)


class PurgeProgress(Strict):
    """``purging.json``: what a purge that was killed has to know when it goes on. ``promotion`` is the digest of the promotion it follows."""

    promotion: Sha256
    plan: PurgePlan
    seen: tuple[Seen, ...] = ()
