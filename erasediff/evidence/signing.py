"""Sign documents with a key in a file, or with a key that securesystemslib reaches by a URI (PKCS#11, a cloud's KMS)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from logging import CRITICAL, getLogger
from pathlib import Path

from securesystemslib.dsse import Envelope as Dsse
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Signer, SSlibKey

from erasediff.envelopes import PublicKey, open_envelope, read_public_key
from erasediff.environment import in_pod
from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.evidence.keys import PUBLIC, read_private_key
from erasediff.records.base import Strict
from erasediff.records.envelopes import Envelope
from erasediff.records.settings import NO_KEY, SigningSettings

_MAX_WORDS = 200
getLogger("securesystemslib").setLevel(CRITICAL)  # it also logs what it raises


@dataclass(frozen=True)
class SigningKey:
    """A signing key. ``file`` is its path, if it is in a file; ``passphrase`` is the file's, or the token's PIN."""

    signer: Signer
    public: PublicKey
    file: Path | None = None
    passphrase: str | None = None


def check_can_sign(settings: SigningSettings, now: datetime) -> None:
    """Check early that what is exported and certified can be signed.

    In a pod only that a key is set, and its end where its public key is there: only the steps that sign mount it.

    Raises:
        BadInput: no key is set, it cannot be used, or it has expired.
        Unreachable: the token or the service that holds it does not answer.
        IntegrityError: the document is another key's.
    """
    if not in_pod():
        load_signing_key(settings, now)
        return
    if not settings.key:
        raise BadInput(NO_KEY)
    public = settings.public_key or Path(settings.key).parent / PUBLIC
    if public.is_file():
        read_public_key(public).check_unexpired(now)


def load_signing_key(settings: SigningSettings, now: datetime) -> SigningKey:
    """The key that the settings name.

    Raises:
        BadInput: none is set, it cannot be used, or it has expired.
        Unreachable: the token or the service that holds it does not answer.
    """
    if not settings.key:
        raise BadInput(NO_KEY)
    passphrase = None if settings.passphrase is None else settings.passphrase.get_secret_value()
    scheme = settings.key.partition(":")[0]
    key = _by_uri(settings, settings.key, passphrase) if scheme in SIGNER_FOR_URI_SCHEME else _from_file(Path(settings.key), passphrase)
    key.public.check_unexpired(now)
    return key


def _from_file(path: Path, passphrase: str | None) -> SigningKey:
    private, public = read_private_key(path, passphrase)
    return SigningKey(CryptoSigner(private, _as_securesystemslib(public)), public, path, passphrase)


def _by_uri(settings: SigningSettings, uri: str, passphrase: str | None) -> SigningKey:
    if settings.public_key is None:
        raise BadInput("the signing key is a URI, so its public key is needed: set ERASEDIFF_SIGNING_PUBLIC_KEY to a file in PEM.")
    public, scheme = read_public_key(settings.public_key), uri.partition(":")[0]

    def secret(what: str) -> str:
        if passphrase is None:
            raise BadInput(f"the signing key needs its {what}: set ERASEDIFF_SIGNING_PASSPHRASE.")
        return passphrase

    try:
        signer = Signer.from_priv_key_uri(uri, _as_securesystemslib(public), secret)
    except BadInput:
        raise
    except Exception as error:  # each signer raises the errors of its own library
        raise Unreachable(
            f"the signing key by {scheme}: cannot be used ({_words(error, passphrase)}): check ERASEDIFF_SIGNING_KEY and its access."
        ) from None
    return SigningKey(signer, public, passphrase=passphrase)


def _words(error: Exception, passphrase: str | None) -> str:
    """A library's error message, without the secret."""
    lines = str(error).splitlines() or [""]
    text = lines[0].replace(passphrase, "…") if passphrase else lines[0]
    return f"{type(error).__name__}: {text[:_MAX_WORDS]}".removesuffix(": ")


def _as_securesystemslib(public: PublicKey) -> SSlibKey:
    return SSlibKey.from_crypto(public.key, keyid=public.id)


def sign(document: Strict, payload_type: str, key: SigningKey) -> bytes:
    """Sign a document; returns the bytes of its envelope.

    Raises:
        Unreachable: the token or the service that holds the key does not sign.
        IntegrityError: the signature does not verify with the public key.
    """
    envelope = Dsse(document.canonical(), payload_type, {})
    try:
        envelope.sign(key.signer)
    except BadInput:  # the token's PIN is missing
        raise
    except Exception as error:  # as above
        problem = _words(error, key.passphrase)
        raise Unreachable(f"the signing key {key.public.id[:12]} does not sign ({problem}): check the access to it, and try again.") from None
    data = Envelope.parse(envelope.to_dict(), "the envelope").canonical() + b"\n"
    try:
        open_envelope(data, key.public, payload_type, "what was signed")
    except BadInput:
        raise IntegrityError("the signing key does not match its public key: check ERASEDIFF_SIGNING_KEY and ERASEDIFF_SIGNING_PUBLIC_KEY.") from None
    return data
