"""Which key signs, and who says when: environment variables, never part of a run's digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from erasediff.records.settings import EnvironmentSettings

NO_KEY = (
    "no signing key is set: make one with `erasediff keys new --to FOLDER`, and set ERASEDIFF_SIGNING_KEY to FOLDER/signing-key.pem "
    "(docs/certificate.md says how to keep it)."
)


class SigningSettings(EnvironmentSettings):
    """Read from the environment with the prefix ``ERASEDIFF_SIGNING_``.

    Attributes:
        key: a private key in PEM, or any URI of a key that securesystemslib knows (``hsm:``, ``awskms:``, ``gcpkms:``, ``azurekms:``, ``hv:``).
        public_key: the public key in PEM; needed where ``key`` is a URI.
        passphrase: of the private key, or the PIN of the token.
        timestamp_url: an authority that stamps the certificate's time (RFC 3161); none is asked if unset.
        code_revision: the commit of the code, where the image knows it.
    """

    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_SIGNING_", extra="ignore", frozen=True)
    of = "signing"

    key: str | None = None
    public_key: Path | None = None
    passphrase: SecretStr | None = None
    timestamp_url: str | None = None
    code_revision: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")] | None = None
