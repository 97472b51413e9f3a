"""Sign a model folder or a file with OpenSSF's model-signing, with the signing key and without a public log.

Anyone with ``model_signing verify key`` can check such a signature without this project.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from erasediff.envelopes import MAX_ENVELOPE_BYTES
from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.signing import SigningKey
from erasediff.files import atomic_path, read_bounded


def sign_model(path: Path, signature: Path, key: SigningKey) -> None:
    """Sign a folder or a file.

    Raises:
        BadInput: the key is not in a file, which model-signing requires.
        IntegrityError: the folder cannot be signed.
    """
    if key.file is None:
        raise BadInput("model-signing signs with a key in a file only: set ERASEDIFF_SIGNING_KEY to one.")
    passphrase = None if key.passphrase is None else key.passphrase.encode()
    config = _library("signing").Config().use_elliptic_key_signer(private_key=key.file, password=passphrase)
    with atomic_path(signature) as temporary:
        try:
            config.sign(path, temporary)
        except ValueError as error:  # a symbolic link, a folder without files
            raise IntegrityError(f"{path} cannot be signed ({str(error)[:200]}): restore the folder, and run the same command again.") from None


def check_model(path: Path, signature: Path, public_key: Path) -> None:
    """Refuse a folder or a file that differs from what was signed.

    Raises:
        BadInput: the signature is missing or too large.
        IntegrityError: it does not verify.
    """
    read_bounded(signature, MAX_ENVELOPE_BYTES, "the signature")
    config = _library("verifying").Config().use_elliptic_key_verifier(public_key=public_key)
    try:
        config.verify(path, signature)
    except Exception as error:  # the library raises the errors of its parsers and of cryptography
        problem = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise IntegrityError(f"{path} does not match the signature {signature} ({problem}): fetch both again from the issuer.") from None


def _library(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(f"model_signing.{name}")
    except ImportError as error:
        raise BadInput(f"model-signing cannot be used without {error.name}: run `pip install 'erasediff[verify]'`.") from None
