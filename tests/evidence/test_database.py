"""The lies: 'the server is away' when it is busy, 'only EraseDiff can change it', and a password in a sentence."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from erasediff.errors import BadInput, Unreachable
from erasediff.evidence import database
from erasediff.evidence.database import LedgerDatabase
from erasediff.evidence.ledger import Ledger
from tests.evidence.postgresql import PASSWORD
from tests.evidence.walking import S, filing, walk


def other_database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")


def test_a_ledger_that_others_keep_busy_is_said_to_be_busy(where: str, ledger: Ledger, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is half-written; a control shows that it was the other who kept it."""
    monkeypatch.setattr(database, "WAIT_SECONDS", 1)
    mine = Ledger.existing(where)
    with ledger.database.writing() as connection:
        connection.execute(database.HEAD.select().with_for_update())
        with pytest.raises(BadInput, match="kept it locked"):
            mine.file(filing(), "desk", now)
        assert mine.requests() == (), "who only reads is not kept waiting"
    assert mine.file(filing(), "desk", now).state is S.RECEIVED


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace(PASSWORD, "wrong-" + PASSWORD), "refuses these credentials"),
        (lambda url: url.replace(":" + PASSWORD, ""), "asks for a password"),
        (lambda url: other_database(url, "nowhere"), "lacks a database, a role or a table"),
        (lambda url: url.replace("host=/tmp", "host=/nowhere"), "does not answer"),
    ],
)
def test_a_server_that_cannot_be_reached_is_a_sentence_without_its_password(postgresql: str, change: object, says: str) -> None:
    assert callable(change)
    with pytest.raises(BadInput, match=says) as refused:
        Ledger.open(change(postgresql))
    assert PASSWORD not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__, "nor in what a traceback would show"


def test_no_setting_of_a_ledger_shows_its_password(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasediff.records.settings import LedgerSettings

    monkeypatch.setenv("ERASEDIFF_LEDGER", postgresql)
    settings = LedgerSettings.load()
    assert PASSWORD not in repr(settings) + str(settings) + settings.model_dump_json() + LedgerDatabase(postgresql).name
    assert settings.where(Path("/work")) == postgresql, "control: it is there"


def test_a_role_that_may_only_add_is_enough(postgresql: str, now: datetime) -> None:
    """The rights of docs/requests.md: with them the ledger works, and its own credentials cannot change an event."""
    grants = Path("docs/requests.md").read_text().split("```sql\n")[1].split("```")[0]
    with psycopg.connect(postgresql, autocommit=True) as connection:
        for statement in ("DROP DATABASE IF EXISTS narrow", "DROP ROLE IF EXISTS erasediff", "CREATE DATABASE narrow"):
            connection.execute(statement)
        connection.execute(f"CREATE ROLE erasediff LOGIN PASSWORD '{PASSWORD}'")
    Ledger.open(other_database(postgresql, "narrow"))
    with psycopg.connect(other_database(postgresql, "narrow"), autocommit=True) as connection:
        connection.execute(grants)
    narrow = other_database(postgresql, "narrow").replace("//ledger:", "//erasediff:")
    ledger = Ledger.open(narrow)
    walk(ledger, S.CLOSED, now)
    assert ledger.verify().holds
    for statement in ("DELETE FROM ledger_events", "UPDATE ledger_events SET body = ''", "DELETE FROM ledger_requests", "TRUNCATE ledger_events"):
        with psycopg.connect(narrow) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
    with psycopg.connect(other_database(postgresql, "narrow"), autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON ledger_events FROM erasediff")
    with pytest.raises(BadInput, match="its role may not do this"):
        ledger.file(filing(4), "desk", now)
    assert len(ledger.requests()) == 1


def test_a_read_only_ledger_is_a_sentence(tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.open(tmp_path)
    settle = database._set_up_sqlite

    def read_only(connection: sqlite3.Connection, record: object) -> None:
        settle(connection, record)
        connection.execute("PRAGMA query_only = ON")  # as root, permissions stop nobody

    monkeypatch.setattr(database, "_set_up_sqlite", read_only)
    with pytest.raises(BadInput, match="read-only"):
        Ledger.existing(tmp_path).file(filing(), "desk", now)
    assert ledger.requests() == ()


def test_a_full_disk_is_a_sentence_and_leaves_the_ledger_whole(tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.open(tmp_path)
    settle = database._set_up_sqlite

    def full(connection: sqlite3.Connection, record: object) -> None:
        settle(connection, record)
        connection.execute("PRAGMA max_page_count = 1")  # SQLite then says of a file that may not grow what it says of a full disk

    monkeypatch.setattr(database, "_set_up_sqlite", full)
    small = Ledger.existing(tmp_path)

    def fill() -> None:
        for label in range(200):
            small.file(filing(label), "desk", now)

    with pytest.raises(BadInput, match="no space is left"):
        fill()
    found = ledger.verify()
    assert found.holds
    assert found.requests == found.events, "each was written as a whole or not at all"


def test_what_is_no_database_is_not_made_one(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"x" * 5000)
    for make in (Ledger.open, Ledger.existing):
        with pytest.raises(BadInput, match="damaged or not a database"):
            make(tmp_path)


def test_a_workdir_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(BadInput, match="not a folder"):
        Ledger.open(tmp_path / "work")


def test_a_server_that_goes_away_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        Ledger.open("postgresql://127.0.0.1:1/ledger")
