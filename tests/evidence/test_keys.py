"""The lies: 'the key is ours alone', of one that others may read; 'it is signed', by a key that had ended."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from securesystemslib.dsse import Envelope as Dsse
from securesystemslib.signer import SSlibKey

from erasediff.cli import main
from erasediff.envelopes import open_envelope, read_public_key
from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.evidence.keys import PRIVATE, PUBLIC, new_key, read_private_key
from erasediff.evidence.signing import load_signing_key, sign
from erasediff.records.envelopes import REVOCATIONS, KeyDocument, RevocationList
from erasediff.records.settings import SigningSettings

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DOCUMENT = RevocationList(number=1, issued_at=NOW, minimum_epoch=0, revoked=())


def test_a_new_key_is_readable_by_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    document = new_key(tmp_path, None, NOW, None)
    assert stat.S_IMODE((tmp_path / PRIVATE).stat().st_mode) == 0o600
    assert read_public_key(tmp_path / PUBLIC).id == document.key_id
    with pytest.raises(BadInput, match="exists, and a key is never replaced"):
        new_key(tmp_path, None, NOW, None)
    assert KeyDocument.read(tmp_path / "signing-key.json") == document


def test_a_key_that_everyone_may_read_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But in a pod, where the kubelet mounts a Secret's files so, and there is nobody else."""
    new_key(tmp_path, None, NOW, None)
    assert read_private_key(tmp_path / PRIVATE, None), "control"
    (tmp_path / PRIVATE).chmod(0o644)
    with pytest.raises(BadInput, match="can be read by everyone"):
        read_private_key(tmp_path / PRIVATE, None)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert read_private_key(tmp_path / PRIVATE, None)


def test_a_public_key_does_not_sign_and_two_are_not_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        new_key(tmp_path / name, None, NOW, None)
    with pytest.raises(BadInput, match=f"is a public key, which cannot sign: name the file {PRIVATE}"):
        read_private_key(tmp_path / "one" / PUBLIC, None)
    pair = tmp_path / "pair.pem"
    pair.write_bytes((tmp_path / "one" / PUBLIC).read_bytes() + (tmp_path / "one" / PRIVATE).read_bytes())
    pair.chmod(0o600)
    assert read_private_key(pair, None)[1].id == read_public_key(tmp_path / "one" / PUBLIC).id, "control: a private key and its public one"
    both = tmp_path / "both.pub"
    both.write_bytes(b"".join((tmp_path / name / PUBLIC).read_bytes() for name in ("one", "two")))
    with pytest.raises(BadInput, match="holds 2 keys, and one is expected"):
        read_public_key(both)
    both.write_bytes(b"of the issuer\n" + (tmp_path / "two" / PUBLIC).read_bytes())
    assert read_public_key(both).id == read_public_key(tmp_path / "two" / PUBLIC).id, "control"


def test_a_locked_key_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    new_key(tmp_path, "open sesame", NOW, None)
    assert b"ENCRYPTED" in (tmp_path / PRIVATE).read_bytes()
    assert read_private_key(tmp_path / PRIVATE, "open sesame")[1].id == read_public_key(tmp_path / PUBLIC).id
    for passphrase, sentence in ((None, "needs a passphrase"), ("wrong", "cannot be read")):
        with pytest.raises(BadInput, match=sentence) as refused:
            read_private_key(tmp_path / PRIVATE, passphrase)
        assert "wrong." not in str(refused.value).replace("PASSPHRASE is wrong.", "")
    new_key(tmp_path / "open", None, NOW, None)
    with pytest.raises(BadInput, match="has no passphrase"):
        read_private_key(tmp_path / "open" / PRIVATE, "something")


def test_a_key_that_has_ended_signs_nothing(tmp_path: Path) -> None:
    end = NOW + timedelta(days=1)
    new_key(tmp_path, None, NOW, end)
    settings = SigningSettings(key=str(tmp_path / PRIVATE))
    assert load_signing_key(settings, end), "control"
    with pytest.raises(BadInput, match="expired at 2026-03-03"):
        load_signing_key(settings, end + timedelta(seconds=1))
    with pytest.raises(BadInput, match="would expire before it is made"):
        new_key(tmp_path / "b", None, NOW, NOW)


@pytest.mark.parametrize("change", [{"more": 1}, {"not_after": "tomorrow"}, {"key_id": "x"}, {"algorithm": "none"}])
def test_a_document_of_a_key_is_strict(tmp_path: Path, change: dict[str, Any]) -> None:
    import json

    new_key(tmp_path, None, NOW, None)
    path = tmp_path / "signing-key.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for read in (lambda: read_private_key(tmp_path / PRIVATE, None), lambda: read_public_key(tmp_path / PUBLIC)):
        with pytest.raises(BadInput, match="is not valid"):
            read()


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        (tmp_path / "k").write_bytes(key.private_bytes(pem, pkcs8, plain))
        (tmp_path / "k").chmod(0o600)
        (tmp_path / "p").write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
        for read in (lambda: read_private_key(tmp_path / "k", None), lambda: read_public_key(tmp_path / "p")):
            with pytest.raises(BadInput, match="curve P-256"):
                read()
    for data in (b"", b"x" * 100, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        (tmp_path / "p").write_bytes(data)
        with pytest.raises(BadInput, match="not a public key in PEM"):
            read_public_key(tmp_path / "p")


def test_securesystemslib_verifies_what_is_signed_here(tmp_path: Path) -> None:
    """The envelope is DSSE's, not ours: another implementation reads it."""
    import json

    new_key(tmp_path, None, NOW, None)
    data = sign(DOCUMENT, REVOCATIONS, load_signing_key(SigningSettings(key=str(tmp_path / PRIVATE)), NOW))
    public = read_public_key(tmp_path / PUBLIC)
    found = Dsse.from_dict(json.loads(data)).verify([SSlibKey.from_crypto(public.key, keyid=public.id)], 1)
    assert set(found) == {public.id}
    assert open_envelope(data, public, REVOCATIONS, "it") == DOCUMENT.canonical()


def test_a_key_by_a_uri_signs_as_one_in_a_file_does(tmp_path: Path) -> None:
    """By securesystemslib's own dispatch, as PKCS#11 tokens and clouds are reached; file2: is the one that needs neither."""
    new_key(tmp_path, None, NOW, None)
    settings = SigningSettings(key=f"file2:{tmp_path / PRIVATE}", public_key=tmp_path / PUBLIC)
    key = load_signing_key(settings, NOW)
    assert key.file is None
    assert open_envelope(sign(DOCUMENT, REVOCATIONS, key), read_public_key(tmp_path / PUBLIC), REVOCATIONS, "it")
    with pytest.raises(BadInput, match="so its public key is needed"):
        load_signing_key(settings.model_copy(update={"public_key": None}), NOW)
    with pytest.raises(Unreachable, match="cannot be used"):
        load_signing_key(settings.model_copy(update={"key": "file2:/nonexistent"}), NOW)
    new_key(tmp_path / "other", None, NOW, None)
    with pytest.raises(Unreachable, match="KeyMismatchError"):
        load_signing_key(settings.model_copy(update={"public_key": tmp_path / "other" / PUBLIC}), NOW)


def test_a_signer_that_signs_with_another_key_is_found_out(tmp_path: Path) -> None:
    """As a key management service does whose key was rotated."""
    from dataclasses import replace

    for name in ("a", "b"):
        new_key(tmp_path / name, None, NOW, None)
    first, second = (load_signing_key(SigningSettings(key=str(tmp_path / name / PRIVATE)), NOW) for name in ("a", "b"))
    with pytest.raises(IntegrityError, match="does not match its public key"):
        sign(DOCUMENT, REVOCATIONS, replace(first, signer=second.signer))


def test_the_command_line_makes_a_key_and_says_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ERASEDIFF_SIGNING_PASSPHRASE", "open sesame")
    assert main(["keys", "new", "--to", str(tmp_path), "--not-after", "2030-01-31"]) == 0
    said = capsys.readouterr()
    assert "open sesame" not in said.out + said.err
    assert KeyDocument.read(tmp_path / "signing-key.json").not_after == datetime(2030, 1, 31, 23, 59, 59, tzinfo=UTC)
    read_private_key(tmp_path / PRIVATE, "open sesame")
    assert main(["keys", "new", "--to", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_key_a_sentence_says_how_to_make_one(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERASEDIFF_SIGNING_KEY", raising=False)
    assert main(["revoke", "--to", str(tmp_path / "list.json"), "--digest", "0" * 64]) == 2
    assert "erasediff keys new --to FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(("passphrase", "said"), [("sesame", "ValueError: the PIN … is wrong"), ("", "ValueError: the PIN sesame is wrong")])
def test_what_a_library_says_is_told_without_the_secret(tmp_path: Path, passphrase: str, said: str) -> None:
    """The second is the control: a passphrase that is empty hides nothing, and leaves the sentence whole."""
    from dataclasses import replace

    class Talkative:
        def sign(self, payload: bytes) -> None:
            raise ValueError("the PIN sesame is wrong\nmore")

    new_key(tmp_path, None, NOW, None)
    key = load_signing_key(SigningSettings(key=str(tmp_path / PRIVATE)), NOW)
    with pytest.raises(Unreachable) as refused:
        sign(DOCUMENT, REVOCATIONS, replace(key, signer=Talkative(), passphrase=passphrase))  # type: ignore[arg-type]
    assert f"({said})" in str(refused.value)
