"""What a house has before anybody asks it to forget, made on the spot for the demo: a signing key, a ledger, and a request in it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import pairwise

from erasediff.attempts.workdir import Workdir
from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.evidence.ledger import Ledger
from erasediff.records.nouns import ErasureRequest
from erasediff.records.requests import Filing, Regime, RequestFacts, State
from erasediff.records.settings import LedgerSettings
from erasediff.records.signing import SigningSettings

BY = "demo"
_TO_ACCEPTED = (State.RECEIVED, State.VERIFIED, State.LOCATED, State.ACCEPTED)


def ensure_signing_key(workdir: Workdir) -> None:
    """Let the workdir's own key sign where none is set; it is made at the first demo.

    A key beside what it signs shows nothing to anybody else: a house keeps its own elsewhere (docs/certificate.md).
    """
    if SigningSettings.load().key:
        return
    folder = workdir.root / "signing"
    if not (folder / PRIVATE).exists():
        new_key(folder, None, datetime.now(UTC).replace(microsecond=0), None)
    os.environ["ERASEDIFF_SIGNING_KEY"] = str(folder / PRIVATE)


def file_request(workdir: Workdir, erasure: ErasureRequest) -> RequestFacts:
    """File a request under the house's own rule and accept it; one that is under way or fulfilled is left as it is."""
    settings = LedgerSettings.load()
    ledger = Ledger.open(settings.where(workdir.root), settings.terms())
    facts = ledger.file(Filing(regime=Regime.OWN, scope="class", erasure=erasure), BY, datetime.now(UTC))
    for before, after in pairwise(_TO_ACCEPTED):
        if facts.state is before:
            facts = ledger.advance(facts.id, before, after, BY, datetime.now(UTC))
    return facts
