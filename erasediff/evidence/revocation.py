"""Issue the signed list of revocations."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from erasediff.envelopes import read_revocations
from erasediff.evidence.signing import SigningKey, sign
from erasediff.files import write_atomic
from erasediff.records.envelopes import REVOCATIONS, RevocationList


def revoke(path: Path, key: SigningKey, digests: tuple[str, ...], minimum_epoch: int, now: datetime) -> RevocationList:
    """Add to the list at ``path``, or create it. Entries are never removed, and the minimum epoch never falls.

    A call that adds nothing leaves the list as it is.

    Raises:
        BadInput: the existing list does not follow the schema, or another key signed it.
        IntegrityError: it was changed.
    """
    before = read_revocations(path, key.public) if path.exists() else None
    known = set(before.revoked) if before else set()
    epoch = max(minimum_epoch, before.minimum_epoch) if before else minimum_epoch
    if before is not None and set(digests) <= known and epoch == before.minimum_epoch:
        return before
    number = 1 if before is None else before.number + 1
    fields = {"number": number, "issued_at": now, "minimum_epoch": epoch, "revoked": tuple(sorted(known | set(digests)))}
    issued = RevocationList.parse(fields, "the list of revocations")
    write_atomic(path, sign(issued, REVOCATIONS, key))
    return issued
