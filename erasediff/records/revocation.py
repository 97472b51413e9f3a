"""The signed list of revoked models. It only grows, and each issue has a higher number."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from erasediff.records.base import Sha256, Strict

REVOCATIONS = "application/vnd.erasediff.revocations+json"


class RevocationList(Strict):
    """Digests of weights and graphs that are revoked, and the erasure epoch below which a model may still know what was forgotten."""

    number: int = Field(ge=1)
    issued_at: AwareDatetime
    minimum_epoch: int = Field(ge=0)
    revoked: tuple[Sha256, ...] = Field(max_length=50_000)
