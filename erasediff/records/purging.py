"""The records of a purge: what was deleted where, and how that was verified."""

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
    """One kind of item in one store. ``what`` is a kind ("object versions", "sample grids"), never a name.

    ``count`` is the highest number that any run of this purge found.
    """

    store: StoreName
    what: str = Field(max_length=120)
    action: Action
    count: int = Field(ge=0)
    verified: str = Field(max_length=200, description="how absence was verified, or why it was kept")
    at: AwareDatetime


class Unfinished(Strict):
    """A store that was not purged, with the reason."""

    store: StoreName
    reason: str = Field(max_length=MAX_REASON)


class PurgeRecord(Record):
    """The purge of one erasure; complete if no store is unfinished."""

    requests: tuple[RequestId, ...]
    forget_set_version: str
    revoked: tuple[Sha256, ...]
    """Digests of revoked weights and graphs."""
    minimum_epoch: int = Field(ge=0)
    lines: tuple[PurgeLine, ...]
    unfinished: tuple[Unfinished, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every store was purged and verified."""
        return not self.unfinished


RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class PlannedRun(Strict):
    """An MLflow run to purge: the named artifacts, or the whole run with its rows if none is named."""

    id: RunId
    artifacts: str
    parts: tuple[str, ...] = ()


class PlannedVersion(Strict):
    """A version in MLflow's registry that still knows the class."""

    name: str
    number: int = Field(ge=1)


class PurgePlan(Strict):
    """What a purge is about to delete. It is recorded first, since the deletion removes the rows that the plan is made from."""

    revoked: tuple[Sha256, ...] = ()
    runs: tuple[PlannedRun, ...] = ()
    versions: tuple[PlannedVersion, ...] = ()


class Seen(Strict):
    """The highest number of items of a kind that a run of the purge found in a store."""

    store: StoreName
    what: str = Field(max_length=120)
    action: Action
    count: int = Field(ge=1)


class PurgeProgress(Strict):
    """``purging.json``: the state that a killed purge resumes from. ``promotion`` is the digest of its promotion."""

    promotion: Sha256
    plan: PurgePlan
    seen: tuple[Seen, ...] = ()
