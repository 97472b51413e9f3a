"""Settings of the signing key and the time stamp authority, from the environment. They are not part of a run's digest."""

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
        key: a private key in PEM, or a URI of a key that securesystemslib supports (``hsm:``, ``awskms:``, ``gcpkms:``, ``azurekms:``, ``hv:``).
        public_key: the public key in PEM; needed if ``key`` is a URI.
        passphrase: of the private key, or the PIN of the token.
        timestamp_url: a time stamp authority (RFC 3161); no time stamp if unset.
        code_revision: the commit of the code, if the image sets it.
    """

    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_SIGNING_", extra="ignore", frozen=True)
    of = "signing"

    key: str | None = None
    public_key: Path | None = None
    passphrase: SecretStr | None = None
    timestamp_url: str | None = None
    code_revision: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")] | None = None
