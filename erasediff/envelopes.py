"""Verify and open a signed envelope (DSSE). It needs ``cryptography`` alone, so that a server can do it.

DSSE signs the payload together with its type and length. This module is stricter than DSSE: an envelope has exactly one signature, names its
key, and is canonical JSON to the last byte, so that no byte of the file can change unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from erasediff.errors import BadInput, IntegrityError
from erasediff.files import read_bounded
from erasediff.records.base import Strict, load_json
from erasediff.records.core import MANIFEST, SERVED, ServedModel
from erasediff.records.envelopes import REVOCATIONS, Envelope, EnvelopeSignature, KeyDocument, RevocationList

D = TypeVar("D", bound=Strict)

MAX_KEY_BYTES, MAX_ENVELOPE_BYTES = 1 << 14, 8 << 20


class SignedByAnother(BadInput):
    """A document is whole, and was signed by another key than the given one."""


@dataclass(frozen=True)
class PublicKey:
    """A public key, and the date after which it may not sign."""

    id: str
    key: ec.EllipticCurvePublicKey
    not_after: datetime | None = None

    @property
    def pem(self) -> bytes:
        """The key in PEM."""
        return self.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def check_unexpired(self, at: datetime) -> None:
        """Refuse what was signed after the key expired.

        Raises:
            BadInput: the key had expired by then.
        """
        if self.not_after is not None and at > self.not_after:
            ended = self.not_after.isoformat(timespec="seconds")
            raise BadInput(f"the key {self.id[:12]} expired at {ended}: make a new one with `erasediff keys new`, and sign with that.")


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """A key's name: the hex SHA-256 of its DER."""
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def document_path(path: Path) -> Path:
    """The path of a key's document."""
    return path.with_suffix(".json")


def with_document(key: ec.EllipticCurvePublicKey, path: Path) -> PublicKey:
    """A key with its expiry date, if the key's document lies beside it.

    Raises:
        BadInput: the document does not follow the schema.
        IntegrityError: the document is another key's.
    """
    found, document = key_id(key), document_path(path)
    if not document.is_file():
        return PublicKey(found, key)
    known = KeyDocument.parse_json(read_bounded(document, MAX_KEY_BYTES, "the key's document"), str(document))
    if known.key_id != found:
        raise IntegrityError(
            f"{document} is the document of the key {known.key_id[:12]}, not of {path.name} ({found[:12]}): put the right one there."
        )
    return PublicKey(found, key, known.not_after)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key in PEM.

    Raises:
        BadInput: it is missing, too large, or no public key on the curve P-256.
        IntegrityError: the document beside it is another key's.
    """
    data = read_bounded(path, MAX_KEY_BYTES, "the public key")
    if (found := data.count(b"-----BEGIN PUBLIC KEY-----")) > 1:
        raise BadInput(f"{path} holds {found} keys, and one is expected: give a file with the issuer's key alone.")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput(f"{path} is not a public key in PEM: hand in the file signing-key.pub that `erasediff keys new` wrote.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput(f"{path} is not a key on the curve P-256: hand in the file signing-key.pub that `erasediff keys new` wrote.")
    return with_document(key, path)


def signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def open_envelope(data: bytes, key: PublicKey, payload_type: str, source: str) -> bytes:
    """Verify an envelope with a key and return its payload.

    Raises:
        BadInput: it is not an envelope, has no signature or several, or has another payload type.
        SignedByAnother: it was signed by another key.
        IntegrityError: it was changed.
    """
    payload, signature = _unsealed(data, payload_type, source)
    if signature.keyid != key.id:
        raise SignedByAnother(f"{source} was signed by the key {signature.keyid[:12]}, not by {key.id[:12]}: hand in the issuer's public key.")
    raw = _decoded(signature.sig, source)
    try:
        key.key.verify(raw, signed_bytes(payload_type, payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise IntegrityError(f"{source} is not what the key {key.id[:12]} signed: fetch it again from the issuer.") from None
    return payload


def _unsealed(data: bytes, payload_type: str, source: str) -> tuple[bytes, EnvelopeSignature]:
    """The payload and the signature of an envelope whose form is right; the signature is not verified.

    Raises:
        BadInput: it is not an envelope, has no signature or several, or has another payload type.
        IntegrityError: it was changed.
    """
    envelope = Envelope.parse_json(data, source)
    if len(envelope.signatures) != 1:
        raise BadInput(f"{source} has {len(envelope.signatures)} signatures, and exactly one is expected: fetch it again from the issuer.")
    if data != envelope.canonical() + b"\n":
        raise IntegrityError(f"{source} was changed after it was issued: fetch it again from the issuer.")
    if envelope.payloadType != payload_type:
        raise BadInput(f"{source} is not of the type {payload_type}: hand in the right file.")
    (signature,) = envelope.signatures
    return _decoded(envelope.payload, source), signature


def read_signed(data: bytes, key: PublicKey, payload_type: str, kind: type[D], source: str) -> D:
    """The document in an envelope; see :func:`open_envelope`.

    Raises:
        BadInput: the payload does not follow the schema.
        IntegrityError: it is not canonical JSON.
    """
    return _document(open_envelope(data, key, payload_type, source), kind, source)


def _document(payload: bytes, kind: type[D], source: str) -> D:
    document = kind.parse_json(payload, source)
    if payload != document.canonical():
        raise IntegrityError(f"the content of {source} is not canonical JSON: fetch it again from the issuer.")
    return document


def read_revocations(path: Path, key: PublicKey) -> RevocationList:
    """A signed list of revocations; see :func:`read_signed`.

    Raises:
        BadInput: it is missing, too large, not signed by this key, or was signed after the key expired.
        IntegrityError: it was changed.
    """
    return parse_revocations(read_bounded(path, MAX_ENVELOPE_BYTES, "the revocation list"), key, f"the revocation list {path}")


def parse_revocations(data: bytes, key: PublicKey, source: str) -> RevocationList:
    """A signed list of revocations; see :func:`read_revocations`."""
    found = read_signed(data, key, REVOCATIONS, RevocationList, source)
    key.check_unexpired(found.issued_at)
    return found


def read_manifest(folder: Path, key: PublicKey | None) -> ServedModel:
    """The manifest of an exported model, signed by this key; without a key it is read and not verified.

    The key's end is asked when it signs: a manifest has no date.

    Raises:
        BadInput: it is missing, too large, not signed, or not a manifest.
        SignedByAnother: it was signed by another key.
        IntegrityError: it was changed.
    """
    data, source = read_bounded(folder / MANIFEST, MAX_ENVELOPE_BYTES, "the manifest"), f"the manifest {folder / MANIFEST}"
    if _is_unsigned(data):
        raise BadInput(f"{source} is not signed, as an earlier version of EraseDiff wrote it: run `erasediff migrate`, which signs it.")
    payload = _unsealed(data, SERVED, source)[0] if key is None else open_envelope(data, key, SERVED, source)
    return _document(payload, ServedModel, source)


def _is_unsigned(data: bytes) -> bool:
    """Whether this is a manifest without an envelope."""
    try:
        document = load_json(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "onnx" in document


def _decoded(text: str, source: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise IntegrityError(f"{source} has a field that is not base64: fetch it again from the issuer.") from None
    if base64.b64encode(data).decode() != text:  # the last character has bits that decode to nothing
        raise IntegrityError(f"{source} was changed after it was issued: fetch it again from the issuer.")
    return data
