"""Which key signs, and who says when: environment variables, never part of a run's digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from erasediff.errors import BadInput
from erasediff.records.base import first_problem

NO_KEY = (
    "no signing key is set: make one with `erasediff keys new --to FOLDER`, and set ERASEDIFF_SIGNING_KEY to FOLDER/signing-key.pem "
    "(docs/certificate.md says how to keep it)."
)


class SigningSettings(BaseSettings):
    """Read from the environment with the prefix ``ERASEDIFF_SIGNING_``.

    Attributes:
        key: a private key in PEM, or any URI of a key that securesystemslib knows (``hsm:``, ``awskms:``, ``gcpkms:``, ``azurekms:``, ``hv:``).
        public_key: the public key in PEM; needed where ``key`` is a URI.
        passphrase: of the private key, or the PIN of the token.
        timestamp_url: an authority that stamps the certificate's time (RFC 3161); none is asked if unset.
        code_revision: the commit of the code, where the image knows it.
    """

    model_config = SettingsConfigDict(env_prefix="ERASEDIFF_SIGNING_", extra="ignore", frozen=True)

    key: str | None = None
    public_key: Path | None = None
    passphrase: SecretStr | None = None
    timestamp_url: str | None = None
    code_revision: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")] | None = None

    @classmethod
    def load(cls) -> Self:
        """The settings.

        Raises:
            BadInput: a variable has a value that cannot be.
        """
        try:
            return cls()
        except ValidationError as error:
            raise BadInput(f"the settings of signing are not valid: {first_problem(error)}; correct the variables ERASEDIFF_SIGNING_….") from None
