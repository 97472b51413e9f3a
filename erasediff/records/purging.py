"""What was deleted where, and how its absence was shown."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from erasediff.records.base import Record, Sha256, Strict
from erasediff.records.requests import RequestId

StoreName = Literal[
    "workdir", "dvc remote", "dvc cache", "mlflow artifacts", "mlflow registry", "models", "pipeline artifacts", "published models", "keys"
]


class PurgeLine(Strict):
    """One kind of thing in one store. ``what`` is a kind ("object versions", "sample grids"), never a name."""

    store: StoreName
    what: str = Field(max_length=120)
    action: Literal["deleted", "revoked", "kept"]
    count: int = Field(ge=0)
    verified: str = Field(max_length=200, description="how absence was shown, or why it was kept")
    at: AwareDatetime


class Unfinished(Strict):
    """A store that was not purged, and why."""

    store: StoreName
    reason: str = Field(max_length=400)


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
