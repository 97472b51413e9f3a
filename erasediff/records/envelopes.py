"""Signed documents: the document beside a signing key, DSSE envelopes, and the list of revoked models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from erasediff.records.base import Sha256, Strict

Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
MAX_SIGNATURES = 8


class KeyDocument(Strict):
    """The document beside a key, ``NAME.json``. ``key_id`` is the SHA-256 of the public key's DER; the key expires after ``not_after``."""

    key_id: Sha256
    algorithm: Literal["ECDSA-P256-SHA256"] = "ECDSA-P256-SHA256"
    created: AwareDatetime
    not_after: AwareDatetime | None = None


class EnvelopeSignature(Strict):
    """One signature of a DSSE envelope, in DER and base64, and the id of its key."""

    keyid: Sha256
    sig: Annotated[Base64, Field(min_length=8, max_length=200)]


class Envelope(Strict):
    """A DSSE envelope (https://github.com/secure-systems-lab/dsse): a payload, its type, and signatures over both."""

    payload: Base64
    payloadType: str = Field(min_length=1, max_length=120)  # noqa: N815 - DSSE's own name
    signatures: tuple[EnvelopeSignature, ...] = Field(max_length=MAX_SIGNATURES)


REVOCATIONS = "application/vnd.erasediff.revocations+json"


class RevocationList(Strict):
    """Digests of weights and graphs that are revoked, and the erasure epoch below which a model may still know what was forgotten."""

    number: int = Field(ge=1)
    issued_at: AwareDatetime
    minimum_epoch: int = Field(ge=0)
    revoked: tuple[Sha256, ...] = Field(max_length=50_000)
