"""A request on its way: what brings it to each state, for tests that need it there."""

from __future__ import annotations

from datetime import datetime

from erasediff.evidence.ledger import Ledger
from erasediff.records.core import ErasureRequest
from erasediff.records.requests import Approval, Filing, Reason, Regime, RequestFacts, State

S = State
ROAD = (
    S.RECEIVED, S.VERIFIED, S.LOCATED, S.ACCEPTED, S.SUPPRESSED, S.BATCHED, S.ERASED, S.GATED, S.APPROVED,
    S.ROLLED_OUT, S.PURGING, S.PURGED, S.CERTIFIED, S.CLOSED,
)  # fmt: skip


def filing(label: int = 3, regime: Regime = Regime.GDPR) -> Filing:
    return Filing(regime=regime, scope="class", erasure=ErasureRequest(dataset="digits", label=str(label)))


def approval(now: datetime, by: str = "officer-1") -> Approval:
    return Approval(by=by, at=now, key_id=f"key-of-{by}", signature="c2lnbmVk")


def step(ledger: Ledger, id: str, to: State, now: datetime, verdict: str = "PASS") -> RequestFacts:
    """One step of the road."""
    if to is S.APPROVED:
        return ledger.approve(id, approval(now), now)
    facts = {"verdict": verdict} if to is S.GATED else {}
    return ledger.advance(id, ROAD[ROAD.index(to) - 1], to, "pipeline", now, facts)


def walk(ledger: Ledger, to: State, now: datetime, label: int = 3, regime: Regime = Regime.GDPR) -> RequestFacts:
    """A request that was filed and brought to a state of the road."""
    facts = ledger.file(filing(label, regime), "desk", now)
    for state in ROAD[ROAD.index(facts.state) + 1 : ROAD.index(to) + 1]:
        facts = step(ledger, facts.id, state, now)
    return facts


def send_back(ledger: Ledger, id: str, now: datetime, reason: Reason = Reason.GATE_FAILED) -> RequestFacts:
    return ledger.advance(id, ledger.facts(id).state, S.SUPPRESSED, "pipeline", now, {"reason": reason.value})
