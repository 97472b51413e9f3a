"""The lie: 'nothing is revoked any more', of a list that somebody shortened."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from erasediff.cli import main
from erasediff.envelopes import read_public_key, read_revocations
from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.keys import PRIVATE, PUBLIC, new_key
from erasediff.evidence.revocation import revoke
from tests.evidence.signed import key_in

NOW = datetime.now(UTC).replace(microsecond=0)
A, B = "a" * 64, "b" * 64


def test_a_list_only_grows_and_each_issue_has_a_higher_number(keys: Path, tmp_path: Path) -> None:
    key, path = key_in(keys), tmp_path / "list.json"
    assert revoke(path, key, (A,), 2, NOW).number == 1
    second = revoke(path, key, (B,), 1, NOW)
    assert (second.number, second.revoked, second.minimum_epoch) == (2, (A, B), 2)
    before = path.read_bytes()
    assert revoke(path, key, (A,), 0, NOW) == second
    assert path.read_bytes() == before
    assert read_revocations(path, read_public_key(keys / PUBLIC)) == second


def test_a_list_that_was_changed_or_is_anothers_is_not_added_to(keys: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    revoke(path, key_in(keys), (A,), 0, NOW)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(whole[20:24], b"AAAA", 1))
    with pytest.raises(IntegrityError):
        revoke(path, key_in(keys), (B,), 0, NOW)
    path.write_bytes(whole)
    new_key(tmp_path / "other", None, NOW, None)
    with pytest.raises(BadInput, match="was signed by the key"):
        revoke(path, key_in(tmp_path / "other"), (B,), 0, NOW)
    assert path.read_bytes() == whole


def test_the_command_line_issues_a_list(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(keys / PRIVATE))
    path = tmp_path / "list.json"
    assert main(["revoke", "--to", str(path), "--digest", A, "--digest", B, "--minimum-epoch", "3"]) == 0
    assert "list 1" in capsys.readouterr().out
    assert main(["revoke", "--to", str(path), "--digest", "abc"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert read_revocations(path, read_public_key(keys / PUBLIC)).revoked == (A, B)
