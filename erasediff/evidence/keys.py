"""Make and read signing keys: EC P-256 in PEM, with a document beside them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from erasediff.envelopes import MAX_KEY_BYTES, PublicKey, document_path, key_id, with_document
from erasediff.environment import in_pod
from erasediff.errors import BadInput
from erasediff.files import read_bounded, write_atomic
from erasediff.records.envelopes import KeyDocument

PRIVATE, PUBLIC = "signing-key.pem", "signing-key.pub"
_READ_BY_OTHERS = 0o004


def new_key(folder: Path, passphrase: str | None, created: datetime, not_after: datetime | None) -> KeyDocument:
    """Make a key pair and its document; only the owner may read the private key.

    Raises:
        BadInput: a key exists, which is never replaced, or it would expire before it is made.
    """
    if not_after is not None and not_after <= created:
        raise BadInput("the key would expire before it is made: choose a later --not-after.")
    private, public = folder / PRIVATE, folder / PUBLIC
    if there := next((path for path in (private, public, document_path(private)) if path.exists()), None):
        raise BadInput(f"{there} exists, and a key is never replaced: choose another folder.")
    key = ec.generate_private_key(ec.SECP256R1())
    secret = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase.encode())
    document = KeyDocument(key_id=key_id(key.public_key()), created=created, not_after=not_after)
    write_atomic(public, key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    document.write(document_path(private))
    write_atomic(private, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret), mode=0o600)
    return document


def read_private_key(path: Path, passphrase: str | None) -> tuple[ec.EllipticCurvePrivateKey, PublicKey]:
    """Read a private key and its document.

    Raises:
        BadInput: it is missing, a public key, readable by everyone, encrypted with another passphrase, or not a key on the curve P-256.
        IntegrityError: the document beside it is another key's.
    """
    data = read_bounded(path, MAX_KEY_BYTES, "the signing key")
    if b"PUBLIC KEY-----" in data and b"PRIVATE KEY-----" not in data:
        raise BadInput(f"the signing key {path} is a public key, which cannot sign: name the file {PRIVATE} that `erasediff keys new` wrote.")
    if path.stat().st_mode & _READ_BY_OTHERS and not in_pod():  # a Secret's files are 0644, and nobody else is in the pod
        raise BadInput(f"the signing key {path} can be read by everyone: run `chmod 600 {path}`, and replace the key if others may have read it.")
    try:
        key = serialization.load_pem_private_key(data, None if passphrase is None else passphrase.encode())
    except TypeError:  # cryptography raises this for a missing or needless passphrase
        problem = "needs a passphrase: set" if passphrase is None else "has no passphrase: unset"
        raise BadInput(f"the signing key {path} {problem} ERASEDIFF_SIGNING_PASSPHRASE.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput(f"the signing key {path} cannot be read: it is not a private key in PEM, or ERASEDIFF_SIGNING_PASSPHRASE is wrong.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput(f"the signing key {path} is not on the curve P-256: make one with `erasediff keys new`.")
    return key, with_document(key.public_key(), path)
