"""The lies: 'it does not verify', of a certificate of before; 'the same class', of a position that was named by another list."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.naming import name_ledger
from erasediff.evidence.verification import CertificateFiles, verify
from erasediff.records.core import ErasureRequest
from erasediff.records.former import FormerStatement
from erasediff.records.requests import Filing, Regime, State
from tests.digits import DIGITS

FORMER = Path(__file__).parents[1] / "former"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
FIRST, SECOND = "r-ceea3a569fe6958a", "r-f9e70bae93e9e02c"


def test_a_certificate_of_before_verifies() -> None:
    """Control: with one byte of it changed it does not."""
    found = verify(CertificateFiles(FORMER / "certificate.dsse.json", FORMER / "signing-key.pub", purge=FORMER / "purge.json"))
    assert isinstance(found.statement, FormerStatement)
    assert (found.statement.predicate.scope.label, found.statement.predicate.phase) == (7, "final")
    assert found.checks_passed == ("signature", "purge ledger")


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_a_certificate_of_before_that_was_changed_does_not_verify(tmp_path: Path, at: float) -> None:
    data = bytearray((FORMER / "certificate.dsse.json").read_bytes())
    data[int(at * len(data))] ^= 1
    (tmp_path / "certificate").write_bytes(bytes(data))
    with pytest.raises(BadInput):
        verify(CertificateFiles(tmp_path / "certificate", FORMER / "signing-key.pub"))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.executescript((FORMER / "ledger.sql").read_text())
    return tmp_path


def stored(workdir: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(workdir / "ledger.db") as database:
        return [*database.execute("SELECT number, request, digest, body FROM ledger_events ORDER BY number")]


def test_a_ledger_of_before_is_refused_with_the_command_that_names_its_classes(workdir: Path) -> None:
    before = stored(workdir)
    for opened in (Ledger.open, Ledger.existing):
        with pytest.raises(BadInput, match=r"tells classes by positions, .*: run `erasediff migrate`"):
            opened(workdir)
    assert stored(workdir) == before


def test_its_requests_keep_their_ids_events_and_states_and_have_names(workdir: Path) -> None:
    before = stored(workdir)
    assert name_ledger(workdir, {"digits": WORDS}, "desk-1", NOW) == 2
    ledger = Ledger.existing(workdir)
    assert {(one.id, one.erasure.label, one.state) for one in ledger.requests()} == {(FIRST, "seven", "CERTIFIED"), (SECOND, "three", "SUPPRESSED")}
    assert stored(workdir)[: len(before)] == before
    heads = [str(digest) for _, _, digest, _ in before]
    assert ledger.verify(heads).holds, "what a certificate quotes is still there"
    assert [(event.kind, event.facts["position"]) for event in ledger.events() if event.kind == "named"] == [("named", 7), ("named", 3)]
    assert ledger.verify(["0" * 64]).problems, "control"


def test_what_was_named_goes_on_and_is_not_named_again(workdir: Path) -> None:
    name_ledger(workdir, {"digits": DIGITS}, "desk-1", NOW)
    ledger, after = Ledger.existing(workdir), stored(workdir)
    assert name_ledger(workdir, {"digits": WORDS}, "desk-1", NOW) == 0
    assert stored(workdir) == after
    again = ledger.file(Filing(regime=Regime.GDPR, scope="class", erasure=ErasureRequest(dataset="digits", label="3")), "desk-2", NOW)
    assert again.id == SECOND, "the same content is the same request"
    ledger.advance(SECOND, State.SUPPRESSED, State.BATCHED, "erasediff", NOW, {"run": "a", "attempt": 1})
    assert ledger.verify().holds


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [({"digits": DIGITS[:7]}, "position 7 of digits, which has 7 classes"), ({"faces": DIGITS}, "for dataset digits: give its configuration too")],
)
def test_a_position_without_a_name_leaves_the_ledger_as_it_is(workdir: Path, lists: dict[str, tuple[str, ...]], sentence: str) -> None:
    before = stored(workdir)
    with pytest.raises(BadInput, match=sentence):
        name_ledger(workdir, lists, "desk-1", NOW)
    assert stored(workdir) == before
    with pytest.raises(BadInput, match="erasediff migrate"):
        Ledger.existing(workdir)


def test_a_ledger_that_somebody_changed_is_not_named(workdir: Path) -> None:
    with sqlite3.connect(workdir / "ledger.db") as database:
        database.execute("""UPDATE ledger_requests SET filing = replace(filing, '"label":3', '"label":4')""")
    with pytest.raises(IntegrityError, match="does not verify"):
        name_ledger(workdir, {"digits": DIGITS}, "desk-1", NOW)


def test_a_name_cannot_be_taken_back_by_a_second_event(workdir: Path) -> None:
    """A class that was named once stays; or a request could be turned to another class by one more event."""
    name_ledger(workdir, {"digits": DIGITS}, "desk-1", NOW)
    with sqlite3.connect(workdir / "ledger.db") as database:
        database.execute("UPDATE ledger_head SET schema = 1")
    with pytest.raises(BadInput):
        name_ledger(workdir, {"digits": WORDS}, "desk-1", NOW)
