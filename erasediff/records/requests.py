"""A person's request on its way from receipt to certificate: its states, its clocks, what happened to it.

Nothing here names a person: a request has an opaque id, and what it asks for is a scope. Where a reason is given it is one of a short list.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from erasediff.records.base import Sha256, Strict
from erasediff.records.nouns import ErasureRequest, Verdict

RequestId = Annotated[str, Field(pattern=r"^r-[0-9a-f]{16}$")]
Actor = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", description="an opaque name: of a key, a role or a service")]
Scope = Literal["class", "concept", "instance"]
Zone = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}$", description="a name of the time zone database")]
Fact = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:+/=-]{1,4096}$")] | bool | int  # no blank and no @: neither a sentence nor an address fits


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


class Reason(StrEnum):
    """Why something was done to a request. A code, because free text would come to name people."""

    LITIGATION = "litigation"
    AUTHORITY_ORDER = "authority_order"
    AUDIT = "audit"
    IDENTITY_NOT_SHOWN = "identity_not_shown"
    UNFOUNDED = "unfounded"
    EXCESSIVE = "excessive"
    LEGAL_OBLIGATION = "legal_obligation"
    LEGAL_CLAIMS = "legal_claims"
    PUBLIC_INTEREST = "public_interest"
    EXPRESSION = "expression"
    EXEMPT = "exempt"
    COMPLEX = "complex"
    MANY_REQUESTS = "many_requests"
    ASKED_BACK = "asked_back"
    FILED_IN_ERROR = "filed_in_error"
    GATE_FAILED = "gate_failed"
    GATE_INCONCLUSIVE = "gate_inconclusive"
    NOT_APPROVED = "not_approved"
    NOT_EXPORTED = "not_exported"
    ROLLED_BACK = "rolled_back"
    RUN_FAILED = "run_failed"
    BATCH_REFUSED = "batch_refused"
    STORE_UNREACHABLE = "store_unreachable"
    OBJECT_LOCK = "object_lock"
    BACKUP_CYCLE = "backup_cycle"
    SHARED_CONTENT = "shared_content"


class Terms(Strict):
    """What the house has settled: days that a request of the regime ``own`` has, where a day ends, and how many people must approve a model."""

    own_days: int = Field(default=30, ge=1, le=3650)
    zone: Zone = "UTC"
    approvals: int = Field(default=0, ge=0, le=8)


class Filing(Strict):
    """What is handed in. Two filings of the same content are one request; ``commitments`` are HMACs of single images, for the scope ``instance``."""

    regime: Regime
    scope: Scope
    erasure: ErasureRequest
    commitments: tuple[Sha256, ...] = Field(default=(), max_length=20_000)

    @field_validator("commitments")
    @classmethod
    def _in_order(cls, found: tuple[str, ...]) -> tuple[str, ...]:
        """Sorted and once each: their order says nothing, and must not make another request of the same content."""
        return tuple(sorted(set(found)))

    @model_validator(mode="after")
    def _fits_its_scope(self) -> Self:
        if (self.scope == "instance") != bool(self.commitments):
            raise ValueError("commitments go with the scope 'instance', and with no other")
        return self


class Clocks(Strict):
    """When a request came and when it is due, in UTC. ``confirm_by`` is the CCPA's confirmation of receipt; days end in ``zone``."""

    received: AwareDatetime
    confirm_by: AwareDatetime | None
    due: AwareDatetime
    extended: bool = False
    confirmed: bool = False
    zone: Zone = "UTC"


class Approval(Strict):
    """One person's signed consent: ``signature`` is DSSE's, in base64, over what :mod:`erasediff.evidence.approvals` says."""

    by: Actor
    at: AwareDatetime
    key_id: str = Field(pattern=r"^[A-Za-z0-9._:+/=-]{1,128}$")
    signature: str = Field(pattern=r"^[A-Za-z0-9+/_=-]{1,4096}$")


class RequestFacts(Strict):
    """What a certificate says of a request: nothing that names anyone."""

    id: RequestId
    regime: Regime
    scope: Scope
    erasure: ErasureRequest
    clocks: Clocks
    state: State
    held: bool = False
    holds: tuple[Reason, ...] = ()
    verdict: Verdict | None = None
    """What the gate said of the latest model that was to fulfil it."""
    waiting: Reason | None = None
    """Why its purge waits."""
    approvals: tuple[Approval, ...] = ()
    """Of the model that is on its way now; a model that was sent back takes its approvals with it."""
    ledger_head: Sha256
    """Digest of the ledger's last event on this request: a later change of its past would not fit."""


class Event(Strict):
    """One line of the ledger; ``previous`` is the digest of the event before it, 64 zeros for the first.

    Digests of ledgers that exist are over this form: a field more, with a default too, is another version of the ledger.
    """

    number: int = Field(ge=1)
    request: RequestId
    kind: str = Field(pattern=r"^[a-z][a-z_]{0,31}$")
    before: State | None
    after: State
    at: AwareDatetime
    by: Actor
    facts: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")], Fact] = Field(default_factory=dict, max_length=16)
    previous: Sha256


class DueDate(Strict):
    """One thing that is owed to whoever made a request, and when."""

    request: RequestId
    what: Literal["confirmation", "answer"]
    at: AwareDatetime
    urgency: Literal["later", "14 days", "7 days", "overdue"]
    state: State
    held: bool


class Verification(Strict):
    """What reading the whole ledger found; an empty ``problems`` is the only good answer."""

    events: int = Field(ge=0)
    requests: int = Field(ge=0)
    head: Sha256
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the chain is whole and every state follows from its events."""
        return not self.problems
