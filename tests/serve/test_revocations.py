"""The lies: 'it is revoked', of a list that nobody read; 'nothing is revoked', of one that was taken away, forged or put back."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from erasediff.envelopes import read_manifest, read_public_key
from erasediff.errors import BadInput
from erasediff.evidence.keys import PUBLIC, new_key
from erasediff.evidence.revocation import revoke
from erasediff.records.serving import ServingRules
from erasediff.serve.guard import ServingGuard
from erasediff.serve.revocations import RevocationsFile, RevocationsState, RulesAndRevocations, open_revocations
from erasediff.serve.rules import RulesFile
from tests.digits import DIGITS
from tests.evidence.signed import key_in
from tests.exported import describe
from tests.issuer import issuer
from tests.serve.conftest import Running, serving, start_bare

NOW = datetime.now(UTC).replace(microsecond=0)
A, B = "a" * 64, "b" * 64


@pytest.fixture
def keys() -> Path:
    return issuer()


@pytest.fixture
def listed(tmp_path: Path, keys: Path) -> RevocationsFile:
    return RevocationsFile(tmp_path / "list.json", read_public_key(keys / PUBLIC))


def test_a_later_list_comes_into_force_when_the_file_changes(tmp_path: Path, keys: Path, listed: RevocationsFile) -> None:
    revoke(tmp_path / "list.json", key_in(keys), (A,), 0, NOW)
    assert listed.now().revoked == (A,)
    revoke(tmp_path / "list.json", key_in(keys), (B,), 3, NOW)
    assert (listed.now().revoked, listed.now().minimum_epoch, listed.state()) == ((A, B), 3, RevocationsState(2, True))


def test_nothing_is_verified_twice(tmp_path: Path, keys: Path, listed: RevocationsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasediff.serve import revocations as module

    reads, read = [], module.parse_revocations
    monkeypatch.setattr(module, "parse_revocations", lambda *given: reads.append(given) or read(*given))
    revoke(tmp_path / "list.json", key_in(keys), (A,), 0, NOW)
    for _ in range(3):
        listed.now()
    assert len(reads) == 1


@pytest.mark.parametrize("what", ["forged", "older", "another of the same number", "of another key", "gone", "garbage"])
def test_a_list_that_does_not_verify_leaves_the_last_good_one_in_force(
    tmp_path: Path, keys: Path, listed: RevocationsFile, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, key = tmp_path / "list.json", key_in(keys)
    revoke(path, key, (A,), 0, NOW)
    older = path.read_bytes()
    revoke(path, key, (B,), 1, NOW)
    good = listed.now()
    if what == "gone":
        path.unlink()
    elif what == "older":
        path.write_bytes(older)
    elif what == "another of the same number":
        path.write_bytes(older)
        revoke(path, key, ("c" * 64,), 1, NOW)
    elif what == "of another key":
        path.unlink()
        new_key(tmp_path / "other", None, NOW, None)
        for digest in (A, B, "c" * 64):
            revoke(path, key_in(tmp_path / "other"), (digest,), 9, NOW)
    else:
        path.write_bytes(path.read_bytes().replace(b"A", b"B", 1) if what == "forged" else b"\x00" * 100)
    with caplog.at_level(logging.ERROR):
        assert [listed.now() for _ in range(3)] == [good] * 3
    assert listed.state() == RevocationsState(2, False)
    (said,) = caplog.messages
    assert "list 2 stays in force" in said
    assert "\n" not in said
    path.unlink(missing_ok=True)
    path.write_bytes(older)
    revoke(path, key, (B,), 1, NOW)
    revoke(path, key, ("d" * 64,), 1, NOW)
    assert (listed.now().number, listed.state().good) == (3, True), "control: it is mended by a later one"


def test_until_the_first_one_verifies_nothing_is_served(tmp_path: Path, keys: Path, listed: RevocationsFile) -> None:
    for name in ("model.onnx", "solvers.npz"):
        (tmp_path / name).write_bytes(b"x")
    guard = ServingGuard(describe(tmp_path), RulesAndRevocations(RulesFile(None), listed))
    assert "does not exist" in str(guard.refusal())
    assert guard.suppressed() == DIGITS
    assert listed.state() == RevocationsState(0, False)
    revoke(tmp_path / "list.json", key_in(keys), (A,), 0, NOW)
    assert guard.refusal() is None


def test_both_the_rules_and_the_list_revoke(tmp_path: Path, keys: Path, listed: RevocationsFile) -> None:
    (tmp_path / "rules.yaml").write_text(f"revoked: ['{B}']\nsuppress: ['4']\nminimum_epoch: 1\n")
    revoke(tmp_path / "list.json", key_in(keys), (A,), 2, NOW)
    now = RulesAndRevocations(RulesFile(tmp_path / "rules.yaml"), listed).now()
    assert now == ServingRules(revoked=(B, A), suppress=("4",), minimum_epoch=2)


def test_a_list_without_a_key_is_a_mistake(tmp_path: Path) -> None:
    assert open_revocations(None, None) is None
    with pytest.raises(BadInput, match="set --key"):
        open_revocations(tmp_path / "list.json", None)


def metric(server: Running, name: str) -> float:
    lines = server.ask("/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_running_server_obeys_the_list(exported: Path, tmp_path: Path, keys: Path) -> None:
    """In the server's own environment, which has no securesystemslib."""
    path, model = tmp_path / "list.json", read_manifest(exported, None)
    with serving("--model", exported, "--revocations", path) as server:
        assert server.ask("/v2/health/ready").status == 503
        assert (metric(server, "erasediff_revocations_number"), metric(server, "erasediff_revocations_good")) == (0, 0)
        revoke(path, key_in(keys), (A,), 0, NOW)
        assert server.ask("/v2/health/ready").status == 200
        assert server.infer(label="3").status == 200, "control"
        path.write_bytes(b"{}")
        assert server.infer(label="3").status == 200, "the last good list revokes something else"
        assert (metric(server, "erasediff_revocations_number"), metric(server, "erasediff_revocations_good")) == (1, 0)
        path.unlink()
        revoke(path, key_in(keys), (A,), 0, NOW)
        revoke(path, key_in(keys), (model.onnx.sha256,), 0, NOW)
        refused = server.infer(label="3")
        assert (refused.status, "has been revoked" in refused.content["error"]) == (503, True)
        path.unlink()
        assert server.infer(label="3").status == 503, "taking the list away brings nothing back"


def test_a_server_does_not_start_on_what_the_list_revokes_or_without_a_key(exported: Path, tmp_path: Path, keys: Path) -> None:
    path, model = tmp_path / "list.json", read_manifest(exported, None)
    revoke(path, key_in(keys), (model.weights_sha256,), 0, NOW)
    for options, sentence in ((("--key", keys / PUBLIC), "has been revoked"), (("--insecure",), "a list of revocations is verified with")):
        process = start_bare("--model", exported, "--revocations", path, *options)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert sentence in errors
        assert errors.strip().count("\n") == 0
