"""The issuer of what tests export: one key for all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from erasediff.evidence.keys import PRIVATE, PUBLIC, new_key
from erasediff.evidence.signing import SigningKey, load_signing_key
from erasediff.records.settings import SigningSettings
from tests.shared import shared


def issuer() -> Path:
    """The folder of the key."""
    return shared("issuer", lambda folder: new_key(folder, None, datetime(2026, 1, 1, tzinfo=UTC), None))


def issuer_key() -> SigningKey:
    """The key."""
    return load_signing_key(SigningSettings(key=str(issuer() / PRIVATE)), datetime.now(UTC))


def issuer_public() -> Path:
    """The public key, which servers pin."""
    return issuer() / PUBLIC
