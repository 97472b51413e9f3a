"""The lies: 'the key lies in a token', of a certificate that nobody can verify; 'signed', by a token that was not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest
from cryptography.hazmat.primitives import serialization

from erasediff.attempts.attempt import Attempt
from erasediff.envelopes import read_public_key, read_revocations
from erasediff.evidence.keys import new_key
from erasediff.records.core import ErasedRecord
from tests.evidence.conftest import NOW
from tests.evidence.softhsm import LABEL, PIN, lose_token, new_token
from tests.s3 import ENVIRONMENT, s3_server

SIGNS, DIGEST = 5, "a" * 64
"""The number of the token's key that signs."""

MAKE_KEY = """
import sys, pkcs11, pkcs11.util.ec as ec
library, label, pin, number = sys.argv[1:]
with pkcs11.lib(library).get_token(token_label=label).open(rw=True, user_pin=pin) as session:
    curve = {pkcs11.Attribute.EC_PARAMS: ec.encode_named_curve_parameters("secp256r1")}
    public, _ = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True).generate_keypair(store=True, id=bytes([int(number)]))
    sys.stdout.buffer.write(ec.encode_ec_public_key(public))
"""


@dataclass(frozen=True)
class Issuer:
    """Somebody who signs with a key that he cannot copy. ``folder`` has what he keeps and gives away."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def public(self) -> Path:
        return self.folder / "public.pem"

    def ask(self, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command as he does, in a process of its own: a PKCS#11 library is loaded once for all."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ERASEDIFF", "AWS"))}
        known = {"ERASEDIFF_SIGNING_PUBLIC_KEY": str(self.public)} | self.environment | changes
        command = [str(Path(sys.executable).parent / "erasediff"), *map(str, arguments)]
        return subprocess.run(
            command, env=inherited | {k: v for k, v in known.items() if v}, capture_output=True, text=True, timeout=300, check=False
        )

    def revoke(self, **changes: str) -> subprocess.CompletedProcess[str]:
        return self.ask("revoke", "--to", self.folder / "list.json", "--digest", DIGEST, **changes)

    def refused(self, **changes: str) -> str:
        """The one sentence with which he is refused; nothing is written."""
        done = self.revoke(**changes)
        assert done.returncode == 2, done.stdout + done.stderr
        assert not (self.folder / "list.json").exists()
        assert PIN not in done.stdout + done.stderr
        (sentence,) = done.stderr.splitlines()
        return sentence


def write_public(path: Path, der: bytes) -> None:
    key = serialization.load_der_public_key(der)
    path.write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


@pytest.fixture
def token(tmp_path: Path) -> Issuer:
    """By PKCS#11, of a real token in software."""
    found = new_token(tmp_path / "token")
    for number in (2, SIGNS):
        made = [sys.executable, "-c", MAKE_KEY, found["PYKCS11LIB"], LABEL, PIN, str(number)]
        write_public(tmp_path / "public.pem", subprocess.run(made, env={**os.environ, **found}, check=True, capture_output=True).stdout)
    uri = {"ERASEDIFF_SIGNING_KEY": f"hsm:{SIGNS}?label={LABEL}", "ERASEDIFF_SIGNING_PASSPHRASE": PIN}
    return Issuer(tmp_path, found | uri)


@pytest.fixture
def wrong_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """By AWS's KMS, as moto plays it: its keys are real, but it hashes the digest that it is asked to sign once more, which AWS does not."""
    with s3_server(monkeypatch, "unused") as (url, _):
        client = boto3.client("kms", endpoint_url=url)
        key = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        write_public(tmp_path / "public.pem", client.get_public_key(KeyId=key)["PublicKey"])
        yield Issuer(tmp_path, ENVIRONMENT | {"AWS_MAX_ATTEMPTS": "1", "AWS_ENDPOINT_URL": url, "ERASEDIFF_SIGNING_KEY": f"awskms:{key}"})


def test_a_list_that_a_token_signed_verifies_with_its_public_key(token: Issuer) -> None:
    done = token.revoke()
    assert done.returncode == 0, done.stderr
    assert PIN not in done.stdout + done.stderr
    assert read_revocations(token.folder / "list.json", read_public_key(token.public)).revoked == (DIGEST,)


def test_a_run_is_certified_with_a_token_and_anybody_can_verify_that(token: Issuer, run: Attempt) -> None:
    certify = ("certify", "--workdir", run.workdir.root, "--run", run.name)
    refused = token.ask(*certify)
    assert (refused.returncode, "run `erasediff migrate`" in refused.stderr) == (2, True), "another key signed the manifest"
    for command in (("migrate", "--by", "desk-1", "--workdir", run.workdir.root), certify):
        done = token.ask(*command)
        assert done.returncode == 0, done.stderr
    model = run.workdir.models / run.need(ErasedRecord).model.weights.uri
    held = ("verify", run.folder / "certificate.dsse.json", "--model", model, "--onnx", run.folder / "onnx", "--key")
    verified = token.ask(*held, token.public)
    assert verified.returncode == 0, verified.stderr
    new_key(token.folder / "other", None, NOW, None)
    other = token.ask(*held, token.folder / "other/signing-key.pub")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1), "control: the public key of another"


def test_another_key_of_the_same_token_is_found_out(token: Issuer) -> None:
    assert "does not match its public key" in token.refused(ERASEDIFF_SIGNING_KEY=f"hsm:2?label={LABEL}")


def test_what_is_wrong_with_a_token_is_one_sentence(token: Issuer) -> None:
    assert "ERASEDIFF_SIGNING_PASSPHRASE" in token.refused(ERASEDIFF_SIGNING_PASSPHRASE="")
    assert "check the access" in token.refused(ERASEDIFF_SIGNING_PASSPHRASE="1234")
    assert "PYKCS11LIB" in token.refused(PYKCS11LIB="")
    assert "check the access" in token.refused(PYKCS11LIB="/nonexistent/library.so")
    assert "check the access" in token.refused(ERASEDIFF_SIGNING_KEY=f"hsm:7?label={LABEL}")
    assert "check the access" in token.refused(ERASEDIFF_SIGNING_KEY=f"hsm:{SIGNS}?label=nobody")
    lose_token(token.folder / "token")
    assert "check the access" in token.refused()


def test_a_service_that_signs_something_else_is_found_out(wrong_service: Issuer) -> None:
    assert "does not match its public key" in wrong_service.refused()


def test_a_service_that_is_down_or_knows_no_such_key_is_one_sentence(wrong_service: Issuer) -> None:
    assert "check the access" in wrong_service.refused(ERASEDIFF_SIGNING_KEY="awskms:12345678-1234-1234-1234-123456789012")
    assert "check the access" in wrong_service.refused(AWS_ENDPOINT_URL="http://127.0.0.1:1")
