"""The lies: 'nothing is due', 'it was refused for a reason', 'the password is nowhere'. The commands on a real ledger, as somebody types them."""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from erasediff.cli import main
from erasediff.errors import ExitCode


@pytest.fixture(autouse=True)
def _who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASEDIFF_BY", "desk")
    monkeypatch.delenv("ERASEDIFF_LEDGER", raising=False)


class Desk:
    """The command line on one workdir."""

    def __init__(self, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.workdir, self._capsys = workdir, capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        unchecked = ["--unchecked"] if arguments[:2] == ("request", "add") else []
        assert main([*map(str, arguments), *unchecked, "--workdir", str(self.workdir)]) == code
        said = self._capsys.readouterr()
        if code == ExitCode.BAD_INPUT:
            assert said.err.startswith("erasediff: ")
            assert said.err.strip().count("\n") == 0, said.err
            return said.err
        assert said.err == ""
        return said.out

    def add(self, *more: object, label: int = 3) -> str:
        return self("request", "add", "--dataset-name", "digits", "--label", label, *more).split(":")[0]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path / "work", capsys)


def days_ago(days: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}"


def test_a_request_is_filed_decided_and_seen(desk: Desk) -> None:
    one = desk.add()
    assert desk.add() == one, "the same once more"
    for command in ("verify", "locate", "accept"):
        desk("request", command, one)
    assert f"{one}  ACCEPTED" in desk("request", "list", "--state", "accepted")
    assert desk("request", "list", "--state", "CLOSED") == ""
    shown = json.loads(desk("request", "show", one))
    assert [event["after"] for event in shown["events"]] == ["RECEIVED", "VERIFIED", "LOCATED", "ACCEPTED"]
    assert {event["by"] for event in shown["events"]} == {"desk"}


def test_a_request_is_held_and_released(desk: Desk) -> None:
    one = desk.add()
    assert "held: litigation" in desk("request", "hold", one, "--reason", "litigation")
    assert "held: litigation" in desk("request", "list")
    assert "held" not in desk("request", "release", one, "--reason", "litigation")


def test_a_request_is_extended_refused_and_closed(desk: Desk) -> None:
    one = desk.add("--received", days_ago(5), "--regime", "CCPA")
    desk("request", "confirm", one)
    desk("request", "extend", one, "--reason", "complex", "--noticed", days_ago(0))
    assert json.loads(desk("request", "show", one))["request"]["clocks"]["extended"]
    desk("request", "refuse", one, "--reason", "identity_not_shown")
    assert desk("due", "--within", 400, code=ExitCode.DUE), "nobody was told yet"
    desk("request", "close", one)
    shown = json.loads(desk("request", "show", one))
    assert shown["request"]["state"] == "CLOSED"
    assert shown["kept_until"][:4] == str(datetime.now(UTC).year + 2), "CCPA: 24 months"


def test_the_exit_code_says_what_is_due(desk: Desk) -> None:
    """A cron job that looks at the code alone must not sleep through a due date, nor wake anybody for nothing."""
    one = desk.add()
    assert desk("due", "--within", 14) == "nothing is due within 14 days.\n"
    assert one in desk("due", "--within", 60, code=ExitCode.DUE)
    late = desk.add("--received", days_ago(40), label=4)
    assert re.search(f"{late}  answer .* overdue", desk("due", code=ExitCode.OVERDUE))
    desk("request", "withdraw", late, "--reason", "asked_back")
    assert desk("due") == "nothing is due within 14 days.\n", "control"


def test_no_ledger_is_not_an_empty_ledger(desk: Desk) -> None:
    """A wrong --workdir must not read as 'nothing is due'."""
    for command in (["due"], ["status"], ["request", "list"], ["request", "show", "r-0123456789abcdef"]):
        assert "there is no ledger" in desk(*command, code=2)
    assert not (desk.workdir / "ledger.db").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["refuse", "ID", "--reason", "because Jane Doe lied"], "--reason is not a code for this command: use one of excessive"),
        (["hold", "ID", "--reason", "complex"], "use one of audit, authority_order, litigation"),
        (["withdraw", "ID", "--reason", "unfounded"], "asked_back"),
        (["accept", "ID"], "RECEIVED and cannot become ACCEPTED"),
        (["close", "ID"], "cannot become CLOSED"),
        (["verify", "ID", "--by", "Jane Doe"], "field 'by'"),
        (["extend", "ID", "--reason", "complex", "--noticed", "yesterday"], "YYYY-MM-DD"),
        (["extend", "ID", "--reason", "complex", "--noticed", "2020-01-01"], "between its receipt and its due date"),
        (["show", "r-0000000000000000"], "no request r-0000000000000000"),
        (["show", "Jane Doe"], "not a request's id"),
        (["list", "--state", "lost"], "there is no such state"),
        (["add", "--dataset-name", "jane@example.org", "--label", "3"], "dataset"),
        (["add", "--dataset-name", "digits", "--label", "3", "--regime", "HIPAA"], "regime"),
        (["add", "--dataset-name", "digits", "--label", "3", "--scope", "instance"], "no model here can be made to forget a single instance"),
        (["add", "--dataset-name", "digits", "--label", "3", "--scope", "everything"], "field 'scope'"),
        (["add", "--dataset-name", "digits", "--label", "3", "--scope", "concept"], "no model here can be made to forget a single concept"),
        (["add", "--dataset-name", "digits", "--label", "3", "--received", "2999-01-01"], "in the future"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(desk: Desk, command: list[str], says: str) -> None:
    """What was typed in place of a code or an id is not repeated: it may name somebody, and sentences end up in logs."""
    one = desk.add(label=8)
    before = desk("request", "show", one)
    sentence = desk("request", *(one if word == "ID" else word for word in command), code=2)
    assert says in sentence
    assert "Jane" not in sentence
    assert "jane" not in sentence
    assert desk("request", "show", one) == before


def test_a_setting_that_cannot_be_is_a_sentence(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, says in (
        ("ERASEDIFF_LEDGER_OWN_DAYS", "soon", "own_days"),
        ("ERASEDIFF_LEDGER_ZONE", "Europe/Atlantis", "does not know the time zone Europe/Atlantis"),
        ("ERASEDIFF_LEDGER", "mysql://someone:secret@host/db", "a ledger cannot use mysql"),
        ("ERASEDIFF_LEDGER", "sqlite://", "a ledger cannot use sqlite"),
        ("ERASEDIFF_LEDGER", "postgresql://someone:secret@127.0.0.1:1/db", "the ledger postgresql://127.0.0.1:1/db does not answer"),
        ("ERASEDIFF_LEDGER", "postgresql://someone:secret@host:port/db", "is not a valid address"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            sentence = desk("request", "add", "--dataset-name", "digits", "--label", 3, code=2)
        assert says in sentence
        assert "secret" not in sentence
        assert "someone" not in sentence
    desk.add()


def test_the_settings_set_zone_and_days(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASEDIFF_LEDGER_ZONE", "Pacific/Kiritimati")
    monkeypatch.setenv("ERASEDIFF_LEDGER_OWN_DAYS", "5")
    clocks = json.loads(desk("request", "show", desk.add("--regime", "own")))["request"]["clocks"]
    assert clocks["due"].endswith("T09:59:59Z"), "a day ends 14 hours earlier there"
    assert clocks["zone"] == "Pacific/Kiritimati"


def test_a_file_that_is_no_ledger_is_left_alone(desk: Desk) -> None:
    desk.workdir.mkdir()
    (desk.workdir / "ledger.db").write_bytes(b"no database" * 200)
    for command in (["due"], ["request", "add", "--dataset-name", "digits", "--label", "3"]):
        assert "is damaged or not a database" in desk(*command, code=2)
    assert (desk.workdir / "ledger.db").read_bytes() == b"no database" * 200


def test_the_page_says_what_is_due_and_loads_nothing(desk: Desk, tmp_path: Path) -> None:
    one, late = desk.add(), desk.add("--received", days_ago(40), "--regime", "own", label=4)
    desk("request", "hold", one, "--reason", "authority_order")
    page = tmp_path / "status.html"
    assert "verifies: 3 events" in desk("status", "--html", page)
    html = page.read_text()
    assert "OVERDUE" in html
    assert html.index(late) < html.index(one), "the earliest first"
    assert "authority order" in html
    assert not re.search(r"(src|href)=|<script|url\(", html)


def test_a_ledger_that_does_not_verify_is_shown_as_broken(desk: Desk, tmp_path: Path) -> None:
    """The page must not show states of a ledger that somebody changed as if they were so."""
    one = desk.add()
    head = desk("status").split()[-1]
    desk("status", "--quoted", head)
    assert "is not in the ledger" in desk("status", "--quoted", "0" * 64, code=2)
    with sqlite3.connect(desk.workdir / "ledger.db") as database:
        database.execute("UPDATE ledger_requests SET state = 'CLOSED'")
    page = tmp_path / "status.html"
    assert main(["status", "--html", str(page), "--workdir", str(desk.workdir)]) == ExitCode.BAD_INPUT
    html = page.read_text()
    assert "BROKEN LEDGER" in html
    assert "does not follow from its events" in html
    assert "IN TIME" not in html
    assert "There is no open deadline" not in html
    assert html.count(one) == 1, "in the sentence that says what is wrong, and in no row"
