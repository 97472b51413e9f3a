"""What the demo sets up for itself: a signing key, and a ledger with one accepted request."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import pairwise

from erasediff.attempts.workdir import Workdir
from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.evidence.ledger import Ledger
from erasediff.records.core import ErasureRequest
from erasediff.records.requests import Filing, Regime, RequestFacts, State
from erasediff.records.settings import LedgerSettings, SigningSettings

BY = "demo"
_TO_ACCEPTED = (State.RECEIVED, State.VERIFIED, State.LOCATED, State.ACCEPTED)


def ensure_signing_key(workdir: Workdir) -> None:
    """Sign with a key in the workdir if no signing key is set; the first demo makes it.

    A key that lies beside what it signs proves nothing to others. In production, keep the key elsewhere (docs/certificate.md).
    """
    if SigningSettings.load().key:
        return
    folder = workdir.root / "signing"
    if not (folder / PRIVATE).exists():
        new_key(folder, None, datetime.now(UTC).replace(microsecond=0), None)
    os.environ["ERASEDIFF_SIGNING_KEY"] = str(folder / PRIVATE)


def file_request(workdir: Workdir, erasure: ErasureRequest) -> RequestFacts:
    """File a request under the regime ``own`` and accept it; a request that is under way or fulfilled stays as it is."""
    settings = LedgerSettings.load()
    ledger = Ledger.open(settings.where(workdir.root), settings.terms())
    facts = ledger.file(Filing(regime=Regime.OWN, scope="class", erasure=erasure), BY, datetime.now(UTC))
    for before, after in pairwise(_TO_ACCEPTED):
        if facts.state is before:
            facts = ledger.advance(facts.id, before, after, BY, datetime.now(UTC))
    return facts
