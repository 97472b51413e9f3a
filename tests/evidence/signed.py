"""Statements as an issuer with the right key, and the wrong intentions, would sign them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erasediff.evidence.keys import PRIVATE
from erasediff.evidence.signing import SigningKey, load_signing_key
from erasediff.records.base import canonical_json
from erasediff.records.certificate import IN_TOTO
from erasediff.records.settings import SigningSettings


def key_in(folder: Path, **settings: Any) -> SigningKey:
    return load_signing_key(SigningSettings(key=str(folder / PRIVATE), **settings), datetime.now(UTC))


class Raw:
    """Something to sign that no schema has seen."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def canonical(self) -> bytes:
        return self.data


def envelope(data: bytes, key: SigningKey, payload_type: str = IN_TOTO) -> bytes:
    from erasediff.evidence.signing import sign

    return sign(Raw(data), payload_type, key)  # type: ignore[arg-type]


def payload_of(certificate: Path) -> dict[str, Any]:
    import base64

    return json.loads(base64.b64decode(json.loads(certificate.read_bytes())["payload"]))


def resigned(certificate: Path, key: SigningKey, change: Callable[[dict[str, Any]], None], to: Path) -> Path:
    """The same certificate with something changed, signed again with the right key."""
    document = payload_of(certificate)
    change(document)
    to.write_bytes(envelope(canonical_json(document), key))
    return to
