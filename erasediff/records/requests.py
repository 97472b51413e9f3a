"""A person's request on its way from receipt to certificate: its states, its clocks, what happened to it.

Nothing here names a person: a request has an opaque id, and what it asks for is a scope.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from erasediff.records.base import Sha256, Strict
from erasediff.records.nouns import ErasureRequest

RequestId = Annotated[str, Field(pattern=r"^r-[0-9a-f]{16}$")]
Actor = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", description="an opaque name: of a key, a role or a service")]


class Regime(StrEnum):
    """The law, or the house's own rule, under which a request was made; it sets the clocks."""

    GDPR = "GDPR"
    CCPA = "CCPA"
    OWN = "own"


class State(StrEnum):
    """Where a request stands."""

    RECEIVED = "RECEIVED"
    VERIFIED = "VERIFIED"
    LOCATED = "LOCATED"
    NOT_FOUND = "NOT_FOUND"
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    LEGAL_HOLD = "LEGAL_HOLD"
    SUPPRESSED = "SUPPRESSED"
    BATCHED = "BATCHED"
    ERASED = "ERASED"
    GATED = "GATED"
    APPROVED = "APPROVED"
    ROLLED_OUT = "ROLLED_OUT"
    PURGING = "PURGING"
    PURGED = "PURGED"
    CERTIFIED = "CERTIFIED"
    CLOSED = "CLOSED"
    WITHDRAWN = "WITHDRAWN"


class Filing(Strict):
    """What is handed in. Two filings of the same content are one request; ``commitments`` are HMACs of single images, for the scope ``instance``."""

    regime: Regime
    scope: Literal["class", "concept", "instance"]
    erasure: ErasureRequest
    commitments: tuple[Sha256, ...] = ()


class Clocks(Strict):
    """When a request came and when it is due, in UTC. ``confirm_by`` is the CCPA's confirmation of receipt."""

    received: AwareDatetime
    confirm_by: AwareDatetime | None
    due: AwareDatetime
    extended: bool = False


class Approval(Strict):
    """One person's signed consent: ``signature`` is DSSE's, in base64, over what :mod:`erasediff.evidence.approvals` says."""

    by: Actor
    at: AwareDatetime
    key_id: str
    signature: str


class RequestFacts(Strict):
    """What a certificate says of a request: nothing that names anyone."""

    id: RequestId
    regime: Regime
    scope: Literal["class", "concept", "instance"]
    erasure: ErasureRequest
    clocks: Clocks
    state: State
    held: bool = False
    approvals: tuple[Approval, ...] = ()
    ledger_head: Sha256
    """Digest of the ledger's last event on this request: a later change of its past would not fit."""


class Event(Strict):
    """One line of the ledger; ``previous`` is the digest of the event before it, 64 zeros for the first."""

    number: int = Field(ge=1)
    request: RequestId
    kind: str = Field(pattern=r"^[a-z][a-z_]{0,31}$")
    before: State | None
    after: State
    at: datetime
    by: Actor
    facts: dict[str, str | int | bool] = Field(default_factory=dict, max_length=16)
    previous: Sha256
