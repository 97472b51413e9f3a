"""The lie: 'it verifies', of what was signed by somebody else, twice, not at all, too late, or says less than it is shown for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from erasediff.cli import main
from erasediff.envelopes import MAX_ENVELOPE_BYTES, read_manifest
from erasediff.errors import BadInput, EraseDiffError, IntegrityError
from erasediff.evidence.keys import PUBLIC, new_key
from erasediff.evidence.revocation import revoke
from erasediff.evidence.signing import sign
from erasediff.evidence.verification import check_final
from erasediff.records.base import canonical_json
from erasediff.records.core import MANIFEST, SERVED
from erasediff.records.envelopes import KeyDocument
from tests.evidence.conftest import Issued
from tests.evidence.signed import envelope, key_in, payload_of, resigned
from tests.exported import describe

NOW = datetime.now(UTC).replace(microsecond=0)
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    new_key(tmp_path / "other", None, NOW, None)
    return tmp_path / "other"


def rewritten(issued: Issued, to: Path, change: Change) -> Path:
    """The envelope, changed by somebody without the key."""
    document = json.loads(issued.certificate.read_bytes())
    change(document)
    to.write_bytes(canonical_json(document) + b"\n")
    return to


def test_control_the_same_rewritten_without_a_change_verifies(issued: Issued, tmp_path: Path) -> None:
    assert issued.verify(certificate=rewritten(issued, tmp_path / "c", lambda document: None)).checks_passed == ("signature",)


def test_control_the_same_signed_again_verifies(issued: Issued, tmp_path: Path) -> None:
    assert issued.verify(certificate=resigned(issued.certificate, key_in(issued.keys), lambda document: None, tmp_path / "c")).checks_passed == (
        "signature",
    )


def test_without_a_key_nothing_verifies(issued: Issued) -> None:
    with pytest.raises(BadInput, match="no public key is given"):
        issued.verify(key=None)
    with pytest.raises(BadInput, match="does not exist"):
        issued.verify(key=issued.keys / "none.pub")


def test_another_key_does_not_verify_it_even_under_its_name(issued: Issued, other: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="was signed by the key"):
        issued.verify(key=other / PUBLIC)
    forged = resigned(issued.certificate, key_in(other), lambda document: None, tmp_path / "forged")
    document, right = json.loads(forged.read_bytes()), json.loads(issued.certificate.read_bytes())
    document["signatures"][0]["keyid"] = right["signatures"][0]["keyid"]
    forged.write_bytes(canonical_json(document) + b"\n")
    with pytest.raises(IntegrityError, match="is not what the key"):
        issued.verify(certificate=forged)


def signatures(count: int) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["signatures"] = document["signatures"] * count

    return change


@pytest.mark.parametrize("count", [0, 2, 8])
def test_an_envelope_has_exactly_one_signature(issued: Issued, tmp_path: Path, count: int) -> None:
    with pytest.raises(BadInput, match=f"has {count} signatures, and exactly one is expected"):
        issued.verify(certificate=rewritten(issued, tmp_path / "c", signatures(count)))


@pytest.mark.parametrize("field", ["signatures", "payload", "payloadType"])
def test_an_envelope_without_one_of_its_fields_is_none(issued: Issued, tmp_path: Path, field: str) -> None:
    with pytest.raises(BadInput, match=f"field '{field}': field required"):
        issued.verify(certificate=rewritten(issued, tmp_path / "c", lambda document: document.pop(field) and None))


def test_what_was_signed_as_something_else_is_no_certificate(issued: Issued, tmp_path: Path) -> None:
    """The type is signed too: it can neither be another, nor be changed."""
    path = tmp_path / "c"
    path.write_bytes(envelope(canonical_json(payload_of(issued.certificate)), key_in(issued.keys), "application/x"))
    with pytest.raises(BadInput, match="is not of the type"):
        issued.verify(certificate=path)
    document = json.loads(path.read_bytes()) | {"payloadType": "application/vnd.in-toto+json"}
    path.write_bytes(canonical_json(document) + b"\n")
    with pytest.raises(IntegrityError, match="is not what the key"):
        issued.verify(certificate=path)


def ended(issued: Issued, folder: Path, at: datetime) -> Path:
    """The same public key with a document that says when it ended."""
    folder.mkdir()
    (folder / PUBLIC).write_bytes(issued.key.read_bytes())
    known = KeyDocument.read(issued.keys / "signing-key.json")
    known.model_copy(update={"not_after": at}).write(folder / "signing-key.json")
    return folder / PUBLIC


def test_what_was_signed_after_the_key_had_ended_does_not_verify(issued: Issued, tmp_path: Path) -> None:
    issued_at = issued.verify().statement.predicate.issued_at
    with pytest.raises(BadInput, match="expired at"):
        issued.verify(key=ended(issued, tmp_path / "early", issued_at - timedelta(seconds=1)))
    assert issued.verify(key=ended(issued, tmp_path / "at its end", issued_at)).checks_passed == ("signature",), (
        "control: a certificate outlives its key"
    )


def test_a_document_of_another_key_is_refused(issued: Issued, other: Path) -> None:
    (other / PUBLIC).write_bytes(issued.key.read_bytes())
    with pytest.raises(IntegrityError, match="is the document of the key"):
        issued.verify(key=other / PUBLIC)


def make_final(document: dict[str, Any]) -> None:
    document["predicate"]["phase"] = "final"


def take_the_purge_away(document: dict[str, Any]) -> None:
    document["predicate"]["purge"] = None


def make_provisional(document: dict[str, Any]) -> None:
    document["predicate"] |= {"phase": "provisional", "purge": None}


def test_a_provisional_certificate_is_not_taken_for_a_final_one(issued: Issued, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_in(issued.keys)
    provisional = resigned(issued.certificate, key, make_provisional, tmp_path / "provisional")
    statement = issued.verify(certificate=provisional).statement
    with pytest.raises(BadInput, match="is provisional"):
        check_final(statement)
    with pytest.raises(BadInput, match="is provisional"):
        issued.verify(certificate=provisional, purge=issued.purge)
    with pytest.raises(BadInput, match="final with a purge, and provisional without one"):
        issued.verify(certificate=resigned(provisional, key, make_final, tmp_path / "a"))
    with pytest.raises(BadInput, match="final with a purge, and provisional without one"):
        issued.verify(certificate=resigned(issued.certificate, key, take_the_purge_away, tmp_path / "b"))
    for path, code in ((provisional, 2), (issued.certificate, 0)):
        assert main(["verify", str(path), "--key", str(issued.key), "--final"]) == code
    assert capsys.readouterr().out.startswith("final certificate")


def swap(document: dict[str, Any]) -> None:
    first, second = document["subject"][:2]
    first["name"], second["name"] = second["name"], first["name"]


def test_subjects_that_were_swapped_are_not_what_lies_there(issued: Issued, tmp_path: Path) -> None:
    swapped = resigned(issued.certificate, key_in(issued.keys), swap, tmp_path / "c")
    with pytest.raises(IntegrityError, match="is not the certified one"):
        issued.verify(certificate=swapped, model=issued.model)


@pytest.mark.parametrize("change", [lambda d: d["subject"].clear(), lambda d: d["subject"].pop(2)], ids=["all", "the graph"])
def test_a_subject_that_is_missing_is_no_pass(issued: Issued, tmp_path: Path, change: Change) -> None:
    certificate = resigned(issued.certificate, key_in(issued.keys), change, tmp_path / "c")
    with pytest.raises(BadInput):
        issued.verify(certificate=certificate, onnx=issued.onnx)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(more=1),
        lambda d: d["predicate"].update(more=1),
        lambda d: d["predicate"]["judged"]["checks"][0].update(more=1),
        lambda d: d["predicate"]["forget_set"].update(version="x.dir"),
        lambda d: d["predicate"]["requests"][0].update(email="a@example.org"),
        lambda d: d.update(predicateType="https://slsa.dev/provenance/v1"),
        lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda d: d["predicate"].update(phase="FINAL"),
        lambda d: d["predicate"].update(issued_at="2026-01-01T00:00:00"),
        lambda d: d["predicate"]["coverage"].pop(),
    ],
)
def test_a_statement_that_does_not_follow_the_schema_is_refused_whoever_signed_it(issued: Issued, tmp_path: Path, change: Change) -> None:
    with pytest.raises(BadInput, match="is not valid"):
        issued.verify(certificate=resigned(issued.certificate, key_in(issued.keys), change, tmp_path / "c"))


@pytest.mark.parametrize("place", ["checks", "controls"])
@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
def test_what_did_not_pass_is_certified_by_no_signature(issued: Issued, tmp_path: Path, place: str, verdict: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["predicate"]["judged"][place][0]["verdict"] = verdict

    with pytest.raises(BadInput, match="did not pass"):
        issued.verify(certificate=resigned(issued.certificate, key_in(issued.keys), change, tmp_path / "c"))


def test_a_payload_that_is_not_canonical_is_refused(issued: Issued, tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(envelope(json.dumps(payload_of(issued.certificate), indent=1).encode(), key_in(issued.keys)))
    with pytest.raises(IntegrityError, match="not canonical JSON"):
        issued.verify(certificate=path)


def test_files_that_are_too_large_or_too_deep_are_refused(issued: Issued, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as handle:
        handle.truncate(MAX_ENVELOPE_BYTES + 1)
    for name in ("certificate", "purge", "revocations"):
        with pytest.raises(BadInput, match="more than the"):
            issued.verify(**{name: big})
    deep = tmp_path / "deep"
    deep.write_bytes(b"[" * 1_000_000)
    for name in ("certificate", "revocations"):
        with pytest.raises(BadInput, match="is not JSON"):
            issued.verify(**{name: deep})
    inner = tmp_path / "inner"
    inner.write_bytes(envelope(b'{"a":' * 100_000, key_in(issued.keys)))
    with pytest.raises(BadInput, match="is not JSON"):
        issued.verify(certificate=inner)


def test_a_field_with_a_line_break_in_its_name_gives_one_line(issued: Issued, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rewritten(issued, tmp_path / "c", lambda document: document.update({"a\nerasediff: PASS": 1}))
    assert main(["verify", str(path), "--key", str(issued.key)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_model_with_a_file_more_or_less_or_a_link_is_another(issued: Issued, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(issued.model, copy)
    assert "weights folder" in issued.verify(model=copy).checks_passed, "control"
    (copy / "extra.txt").write_text("x")
    with pytest.raises(IntegrityError, match="is not the certified one"):
        issued.verify(model=copy)
    (copy / "extra.txt").unlink()
    (copy / "link").symlink_to("unet")
    with pytest.raises(BadInput, match="symbolic link"):
        issued.verify(model=copy)
    (copy / "link").unlink()
    (copy / "model_index.json").unlink()
    with pytest.raises(IntegrityError):
        issued.verify(model=copy)
    with pytest.raises(BadInput, match="is not a folder"):
        issued.verify(model=tmp_path / "none")
    with pytest.raises(BadInput, match="does not exist"):
        issued.verify(onnx=tmp_path / "none")


def test_what_was_revoked_since_is_refused(issued: Issued, tmp_path: Path, other: Path) -> None:
    key, path = key_in(issued.keys), tmp_path / "revocations.json"
    graph = issued.verify().statement.digest_of("ONNX graph")
    assert graph is not None
    revoke(path, key, ("9" * 64,), 1, NOW)
    assert "revocation list 1" in issued.verify(revocations=path).checks_passed, "control"
    revoke(path, key, (graph,), 1, NOW)
    with pytest.raises(BadInput, match="was revoked by list 2"):
        issued.verify(revocations=path)
    late = tmp_path / "late.json"
    revoke(late, key, (), 2, NOW)
    with pytest.raises(BadInput, match="has erasure epoch 1, and list 1 allows 2 or more"):
        issued.verify(revocations=late)
    foreign = tmp_path / "foreign.json"
    revoke(foreign, key_in(other), (), 0, NOW)
    with pytest.raises(BadInput, match="was signed by the key"):
        issued.verify(revocations=foreign)


def test_a_signature_of_model_signing_needs_what_it_was_made_of(issued: Issued, tmp_path: Path) -> None:
    signature = issued.run.folder / "onnx.model.sig"
    held = issued.verify(onnx=issued.onnx, onnx_signature=signature).checks_passed
    assert held[-1] == "the graph's signature", "control"
    with pytest.raises(BadInput, match="--onnx-signature needs --onnx"):
        issued.verify(onnx_signature=signature)
    with pytest.raises(IntegrityError, match="does not match the signature"):
        issued.verify(onnx=issued.onnx, onnx_signature=issued.run.folder / "weights.model.sig")
    broken = tmp_path / "broken.sig"
    broken.write_text("{}")
    with pytest.raises(IntegrityError, match="does not match the signature"):
        issued.verify(onnx=issued.onnx, onnx_signature=broken)


def a_byte_more(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(b"x")

    return change


def another_table(folder: Path) -> None:
    """With a manifest that names it, which the issuer's key has signed."""
    a_byte_more("solvers.npz")(folder)
    describe(folder, forgotten=("0",), weights_sha256=read_manifest(folder, None).weights_sha256)


def signed_by_another(folder: Path) -> None:
    new_key(folder / "other", None, NOW, None)
    (folder / MANIFEST).write_bytes(sign(read_manifest(folder, None), SERVED, key_in(folder / "other")))


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "the graph": (a_byte_more("model.onnx"), "model.onnx is not the file that the signed manifest names"),
    "the tables": (a_byte_more("solvers.npz"), "solvers.npz is not the file that the signed manifest names"),
    "the manifest": (a_byte_more(MANIFEST), "is not JSON"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "does not exist"),
    "another issuer's manifest": (signed_by_another, "is signed by another key than the certificate: ask the issuer"),
    "another model": (lambda folder: describe(folder, forgotten=("0",)), "is not of the certified model"),
    "another epoch": (
        lambda folder: describe(folder, forgotten=("0",), epoch=2, weights_sha256=read_manifest(folder, None).weights_sha256),
        "is not of the certified model",
    ),
    "another table of the issuer's": (another_table, "is not of the certified model"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_an_exported_folder_is_the_certified_one_with_its_manifest_and_tables(issued: Issued, tmp_path: Path, what: str) -> None:
    """Controls: the untouched folder; and the graph alone, of which only the graph is said to be verified."""
    folder = Path(shutil.copytree(issued.onnx.parent, tmp_path / "onnx"))
    assert issued.verify(onnx=folder).checks_passed == ("signature", "manifest", "ONNX graph", "solver tables"), "control"
    assert issued.verify(onnx=folder / "model.onnx").checks_passed == ("signature", "ONNX graph"), "control"
    change, sentence = FOLDERS[what]
    change(folder)
    with pytest.raises(EraseDiffError, match=sentence):
        issued.verify(onnx=folder)
