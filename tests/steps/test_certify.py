# ruff: noqa: F811 - fixtures of another folder
"""The lies: 'certified', of files that are not what was measured; 'the same certificate', of another; 'the key of the forget set is gone'."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from erasediff.attempts.attempt import Attempt
from erasediff.cli import main
from erasediff.envelopes import read_manifest, read_public_key, read_revocations
from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.certificate import commitment_to
from erasediff.evidence.keys import PRIVATE, PUBLIC, new_key
from erasediff.evidence.served_rules import revoke
from erasediff.evidence.signing import sign
from erasediff.evidence.verification import CertificateFiles, verify
from erasediff.records.certificate import CertificateRecord
from erasediff.records.core import MANIFEST, SERVED, ErasedRecord, ForgetSetRecord, VerdictRecord
from erasediff.records.settings import RollOutSettings
from erasediff.steps.certify import certify
from erasediff.steps.perform import perform
from erasediff.steps.table import step_named
from tests.certified import NOON, REQUEST, UNFINISHED, file_requests, purge_of, request
from tests.evidence.conftest import copy_of, keys, needs_model_signing, promoted, run, signed_by  # noqa: F401 - fixtures
from tests.evidence.signed import key_in

pytestmark = pytest.mark.usefixtures("needs_model_signing", "signed_by")


def files(run: Attempt) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}


def predicate(run: Attempt) -> dict:
    return json.loads(base64.b64decode(json.loads((run.folder / "certificate.dsse.json").read_bytes())["payload"]))["predicate"]


def test_certifying_twice_leaves_what_once_leaves(run: Attempt) -> None:
    record, before = certify(run), files(run)
    assert certify(run) == record
    assert files(run) == before
    assert {file.uri for file in record.files} == {
        "certificate.dsse.json",
        "certificate.html",
        "letter.html",
        "signing-key.pub",
        "weights.model.sig",
        "onnx.model.sig",
    }


@pytest.mark.parametrize("name", ["certificate.dsse.json", "letter.html", "weights.model.sig"])
def test_what_was_changed_or_lost_is_made_again(run: Attempt, name: str) -> None:
    first = certify(run)
    (run.folder / name).write_bytes(b"x")
    second = certify(run)
    assert second.statement == first.statement or second.issued_at != first.issued_at
    assert (run.folder / name).read_bytes() != b"x"
    (run.folder / name).unlink()
    certify(run)
    assert (run.folder / name).is_file()


def test_a_killed_step_leaves_no_record_and_the_next_completes_it(run: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasediff.steps import certify as step

    def killed(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(step, "sign", killed)
        with pytest.raises(KeyboardInterrupt):
            certify(run)
    assert run.find(CertificateRecord) is None
    assert not (run.folder / "certificate.dsse.json").exists()
    assert certify(run).phase == "provisional"


def test_it_becomes_final_with_the_purge_and_keeps_its_commitment(run: Attempt) -> None:
    requests = request(1), request(2)
    file_requests(run, *requests)
    certify(run)
    committed, key = predicate(run)["forget_set"]["commitment"], run.workdir.request_key(REQUEST).read_bytes()
    assert committed == commitment_to(run.need(ForgetSetRecord), key), "control: before the purge it can be opened"
    run.workdir.request_key(REQUEST).unlink()
    purge_of(run, *requests)
    assert certify(run).phase == "final"
    assert predicate(run)["forget_set"]["commitment"] == committed
    assert not run.workdir.request_key(REQUEST).exists()


def test_after_a_purge_no_key_comes_to_lie_there(run: Attempt) -> None:
    """Also where no certificate was issued before it."""
    run.workdir.request_key(REQUEST).unlink()
    purge_of(run)
    assert certify(run).phase == "final"
    assert not run.workdir.request_key(REQUEST).exists()


def test_a_purge_that_is_not_done_leaves_the_provisional_one_and_says_so(run: Attempt, capsys: pytest.CaptureFixture[str]) -> None:
    """The pipeline certifies before it purges, so a purge that is to be run again must not stop it there."""
    certify(run)
    before = files(run)
    purge_of(run, unfinished=UNFINISHED)
    assert perform(step_named("certify"), run).phase == "provisional"
    assert {name: data for name, data in files(run).items() if name in before} | {"seconds.json": b""} == before | {"seconds.json": b""}
    assert main(["certify", "--workdir", str(run.workdir.root), "--run", run.name]) == 13
    assert "is not complete" in capsys.readouterr().err
    purge_of(run)
    assert perform(step_named("certify"), run).phase == "final", "control"


def test_weights_and_graphs_that_were_changed_are_not_signed(promoted: Attempt, run: Attempt, tmp_path: Path) -> None:
    (run.folder / "onnx/model.onnx").write_bytes(b"another")
    with pytest.raises(IntegrityError, match="is not the one that was measured"):
        certify(run)
    other = copy_of(promoted, tmp_path / "other")
    weights = other.workdir.models / other.need(ErasedRecord).model.weights.uri
    (weights / "model_index.json").write_text("{}")
    with pytest.raises(IntegrityError, match="are not those that were measured"):
        certify(other)
    assert not (other.folder / "certificate.dsse.json").exists()


def test_a_new_key_certifies_when_it_has_signed_the_manifest_too(run: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the certificate that verified with its manifest would be replaced by one that does not."""
    certify(run)
    before = files(run)
    new_key(tmp_path / "new", None, NOON, None)
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(tmp_path / "new" / PRIVATE))
    with pytest.raises(BadInput, match=r"is signed by another key than the certificate would be.*run `erasediff migrate`"):
        certify(run)
    assert files(run) == before
    manifest = run.folder / "onnx" / MANIFEST
    manifest.write_bytes(sign(read_manifest(manifest.parent, None), SERVED, key_in(tmp_path / "new")))
    assert certify(run).key_id == read_public_key(tmp_path / "new" / PUBLIC).id, "control"
    presented = CertificateFiles(certificate=run.folder / "certificate.dsse.json", key=tmp_path / "new" / PUBLIC, onnx=manifest.parent)
    assert "manifest" in verify(presented).checks_passed


def test_an_earlier_step_that_is_missing_is_named(run: Attempt) -> None:
    run.path(VerdictRecord).unlink()
    with pytest.raises(BadInput, match="run `erasediff gate` first"):
        certify(run)


def test_a_key_by_a_uri_certifies_without_the_signatures_that_need_a_file(run: Attempt, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", f"file2:{keys / PRIVATE}")
    monkeypatch.setenv("ERASEDIFF_SIGNING_PUBLIC_KEY", str(keys / "signing-key.pub"))
    assert {file.uri for file in certify(run).files} == {"certificate.dsse.json", "certificate.html", "letter.html", "signing-key.pub"}


def test_the_serving_image_is_a_subject_where_it_is_set_by_digest(run: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    for image, expected in (("serve:1", 4), (f"registry.example/serve@sha256:{'e' * 64}", 5)):
        monkeypatch.setenv("ERASEDIFF_ROLL_OUT_IMAGE", image)
        run.path(CertificateRecord).unlink(missing_ok=True)
        certify(run)
        payload = json.loads(base64.b64decode(json.loads((run.folder / "certificate.dsse.json").read_bytes())["payload"]))
        assert len(payload["subject"]) == expected


def test_the_command_line_certifies_and_says_what_it_wrote(
    run: Attempt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_unet: Callable[..., torch.nn.Module]
) -> None:
    assert main(["certify", "--workdir", str(run.workdir.root), "--run", run.name]) == 0
    assert "provisional certificate" in capsys.readouterr().out
    monkeypatch.delenv("ERASEDIFF_SIGNING_KEY")
    assert main(["certify", "--workdir", str(run.workdir.root), "--run", run.name]) == 2
    said = capsys.readouterr().err
    assert "erasediff keys new --to FOLDER" in said
    assert said.count("\n") == 1


def test_whoever_serves_is_told_what_must_not_be_served_any_more(run: Attempt, keys: Path) -> None:
    """The list is raised with the promotion and added to with the purge; certifying again leaves it. Control: another key does not read it."""
    certify(run)
    key = read_public_key(keys / PUBLIC)
    path, epoch = run.workdir.revocations(key.id), run.need(ErasedRecord).model.epoch
    first = read_revocations(path, key)
    assert (first.number, first.minimum_epoch, first.revoked) == (1, epoch, ())
    certify(run)
    assert read_revocations(path, key) == first
    revoke(run.workdir, ["a" * 64], RollOutSettings.load())
    certify(run)
    second = read_revocations(path, key)
    assert (second.number, second.minimum_epoch, second.revoked) == (2, epoch, ("a" * 64,))
    new_key(run.workdir.root / "other", None, NOON, None)
    with pytest.raises(BadInput):
        read_revocations(path, read_public_key(run.workdir.root / "other" / PUBLIC))
