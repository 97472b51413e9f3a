"""A person's request from receipt to certificate: states, deadlines and events.

Nothing here names who asked: a request has an opaque id and a scope, and reasons are codes. The class may have a person's name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from erasediff.records.base import Sha256, Strict
from erasediff.records.core import ErasureRequest, Verdict

RequestId = Annotated[str, Field(pattern=r"^r-[0-9a-f]{16}$")]
Actor = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", description="an opaque name: of a key, a role or a service")]
Scope = Literal["class", "concept", "instance"]
ERASED_SCOPE: Scope = "class"
"""The scope that the pipeline can fulfil. Requests of another one are refused when they are filed; those in ledgers of before wait."""
Zone = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}$", description="a name of the time zone database")]
Fact = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:+/=-]{1,4096}$")] | bool | int  # no spaces, no @: no sentence or e-mail address fits


class Regime(StrEnum):
    """The law, or the operator's own rule, under which a request was made; it sets the deadlines."""

    GDPR = "GDPR"
    CCPA = "CCPA"
    OWN = "own"


class State(StrEnum):
    """The state of a request."""

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
    """Reason codes. Free text might name people."""

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
    """The operator's terms: days for the regime ``own``, the time zone of deadlines, and how many people must approve a model."""

    own_days: int = Field(default=30, ge=1, le=3650)
    zone: Zone = "UTC"
    approvals: int = Field(default=0, ge=0, le=8)


class Filing(Strict):
    """The content of a request. Filing the same content twice gives one request. ``commitments`` are HMACs of images, for the scope ``instance``."""

    regime: Regime
    scope: Scope
    erasure: ErasureRequest
    commitments: tuple[Sha256, ...] = Field(default=(), max_length=20_000)

    @field_validator("commitments")
    @classmethod
    def _in_order(cls, found: tuple[str, ...]) -> tuple[str, ...]:
        """Sort and deduplicate: the order must not make another request of the same content."""
        return tuple(sorted(set(found)))

    @model_validator(mode="after")
    def _fits_its_scope(self) -> Self:
        if (self.scope == "instance") != bool(self.commitments):
            raise ValueError("commitments go with the scope 'instance', and with no other")
        return self


class Clocks(Strict):
    """When a request was received and is due, in UTC. ``confirm_by`` is for the CCPA's confirmation of receipt; days end in ``zone``."""

    received: AwareDatetime
    confirm_by: AwareDatetime | None
    due: AwareDatetime
    extended: bool = False
    confirmed: bool = False
    zone: Zone = "UTC"


class Approval(Strict):
    """One person's signed consent: ``signature`` is DSSE's, in base64, over :class:`erasediff.evidence.approvals.Consent`."""

    by: Actor
    at: AwareDatetime
    key_id: str = Field(pattern=r"^[A-Za-z0-9._:+/=-]{1,128}$")
    signature: str = Field(pattern=r"^[A-Za-z0-9+/_=-]{1,4096}$")


class RequestFacts(Strict):
    """What others may know about a request; nothing here names who asked.

    ``unchecked``: nobody looked whether a registered model has the class.
    """

    id: RequestId
    regime: Regime
    scope: Scope
    erasure: ErasureRequest
    clocks: Clocks
    state: State
    unchecked: bool = False
    held: bool = False
    holds: tuple[Reason, ...] = ()
    verdict: Verdict | None = None
    """The gate's verdict on the latest model for it."""
    waiting: Reason | None = None
    """Why its purge waits."""
    approvals: tuple[Approval, ...] = ()
    """Approvals of the current model; they are lost when the request is sent back."""
    ledger_head: Sha256
    """Digest of the ledger's last event on this request, which pins all its events."""


class Event(Strict):
    """One line of the ledger; ``previous`` is the digest of the event before it, 64 zeros for the first.

    Existing ledgers' digests depend on these fields: adding one, even with a default, needs a new version of the ledger.
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
    """One deadline of a request."""

    request: RequestId
    what: Literal["confirmation", "answer"]
    at: AwareDatetime
    urgency: Literal["later", "14 days", "7 days", "overdue"]
    state: State
    held: bool


class Verification(Strict):
    """The result of verifying the whole ledger; it holds if ``problems`` is empty."""

    events: int = Field(ge=0)
    requests: int = Field(ge=0)
    head: Sha256
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the chain is intact and every state follows from its events."""
        return not self.problems
