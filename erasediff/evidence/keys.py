"""Make and read signing keys of one's own: EC P-256 in PEM, with a small document beside them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from erasediff.envelopes import MAX_KEY_BYTES, PublicKey, document_path, key_id, read_public_key, with_document
from erasediff.errors import BadInput
from erasediff.files import read_bounded, write_atomic
from erasediff.records.keys import KeyDocument
from erasediff.records.signing import NO_KEY, SigningSettings

PRIVATE, PUBLIC = "signing-key.pem", "signing-key.pub"
_READ_BY_OTHERS = 0o004


def new_key(folder: Path, passphrase: str | None, created: datetime, not_after: datetime | None) -> KeyDocument:
    """Make a key pair: the private key readable by its owner alone, the public key, and their document.

    Raises:
        BadInput: there is a key already, which is never replaced, or the end lies before the beginning.
    """
    if not_after is not None and not_after <= created:
        raise BadInput("the key would have ended before it was made: choose a later --not-after.")
    private, public = folder / PRIVATE, folder / PUBLIC
    if there := next((path for path in (private, public, document_path(private)) if path.exists()), None):
        raise BadInput(f"{there} is there already, and a key is never replaced: choose another folder.")
    key = ec.generate_private_key(ec.SECP256R1())
    secret = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase.encode())
    document = KeyDocument(key_id=key_id(key.public_key()), created=created, not_after=not_after)
    write_atomic(public, key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    document.write(document_path(private))
    write_atomic(private, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret), mode=0o600)
    return document


def check_can_sign(settings: SigningSettings, now: datetime) -> None:
    """Refuse settings under which nothing could be signed, before the work that is to be signed is done.

    A key that lies elsewhere, or in a token, is only found out by who signs.

    Raises:
        BadInput: no key is set, or its document says that it has ended.
        IntegrityError: the document is another key's.
    """
    if not settings.key:
        raise BadInput(NO_KEY)
    public = settings.public_key or Path(settings.key).parent / PUBLIC
    if public.is_file():
        read_public_key(public).check_unexpired(now)


def read_private_key(path: Path, passphrase: str | None) -> tuple[ec.EllipticCurvePrivateKey, PublicKey]:
    """Read a private key, and what is known of it.

    Raises:
        BadInput: it is missing, readable by everyone, locked with another passphrase, or no key on the curve P-256.
        IntegrityError: the document beside it is another key's.
    """
    data = read_bounded(path, MAX_KEY_BYTES, "the signing key")
    if path.stat().st_mode & _READ_BY_OTHERS:
        raise BadInput(f"the signing key {path} can be read by everyone: run `chmod 600 {path}`, and think about who has read it.")
    try:
        key = serialization.load_pem_private_key(data, None if passphrase is None else passphrase.encode())
    except TypeError:  # cryptography's word for a passphrase that is missing, or that there is no use for
        said = "needs a passphrase: set" if passphrase is None else "has no passphrase: unset"
        raise BadInput(f"the signing key {path} {said} ERASEDIFF_SIGNING_PASSPHRASE.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput(f"the signing key {path} cannot be opened: it is no private key in PEM, or ERASEDIFF_SIGNING_PASSPHRASE is wrong.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput(f"the signing key {path} is not on the curve P-256: make one with `erasediff keys new`.")
    return key, with_document(key.public_key(), path)
