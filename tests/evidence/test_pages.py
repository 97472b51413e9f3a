"""The lies: a word that promises more than was tested; a letter that names another person's request."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.evidence import coverage, limitations, pages
from erasediff.evidence.certificate import Facts, statement_of
from erasediff.evidence.pages import certificate_page, letter
from erasediff.records.certificate import Statement
from erasediff.records.core import VerdictRecord
from erasediff.records.requests import Regime
from tests.certified import purge_of, request
from tests.evidence.test_statement import check, facts  # noqa: F401 - a fixture

AT = datetime(2026, 3, 3, 9, tzinfo=UTC)
OURS = request(1), request(2, regime=Regime.CCPA), request(3, regime=Regime.OWN)
PROMISES = re.compile(
    r"guarant|proof|\bproves?\b|proven|certain(ly)?\b|100\s*%\s*(gone|erased|forgotten)|completely|irrevers|never again", re.IGNORECASE
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def both(facts: Facts, run: Attempt) -> tuple[Statement, Statement]:  # noqa: F811
    """A provisional certificate and a final one."""
    purged = replace(facts, requests=OURS, purge=purge_of(run, *OURS))
    return statement_of(replace(facts, requests=OURS), AT), statement_of(purged, AT)


def texts(statement: Statement) -> dict[str, str]:
    letters = {f"letter {one and one.id}": letter(statement, one) for one in (None, *OURS)}
    return letters | {"page": certificate_page(statement, "a" * 64), "certificate": statement.canonical().decode()}


def promises(text: str) -> list[str]:
    return [found[0] for found in PROMISES.finditer(html.unescape(re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)))]


def test_no_text_promises_more_than_was_tested(both: tuple[Statement, Statement]) -> None:
    for statement in both:
        assert {name: found for name, text in texts(statement).items() if (found := promises(text))} == {}


def test_nor_does_any_text_that_they_can_be_made_of() -> None:
    """Also those that only another run would show."""
    folder = Path(pages.__file__).parent
    sources = [path.read_text() for path in (*folder.glob("*.j2"), Path(coverage.__file__), Path(limitations.__file__), Path(pages.__file__))]
    assert [promises(text) for text in sources] == [[]] * len(sources)
    assert promises((ROOT / "docs/certificate.md").read_text().replace("never \u201cproof of unlearning\u201d", "")) == []


def test_control_promises_are_found() -> None:
    assert promises("We guarantee it. A <b>proof of unlearning</b>, 100 % gone, completely.") == ["guarant", "proof", "100 % gone", "completely"]


def test_a_letter_names_its_own_request_and_nothing_of_the_model(both: tuple[Statement, Statement]) -> None:
    for statement in both:
        for one in OURS:
            text = letter(statement, one)
            assert one.id in text
            assert not [other.id for other in OURS if other is not one and other.id in text]
            assert not re.search(r"[0-9a-f]{32}", text)
            assert not re.search(r"class 1|label|ONNX|F1\b|weights", text)
    assert re.search(r"[0-9a-f]{64}", certificate_page(both[0], "a" * 64)), "control"


def test_a_letter_says_which_law_and_where_to_complain(both: tuple[Statement, Statement]) -> None:
    gdpr, ccpa, own = (letter(both[1], one) for one in OURS)
    assert "General Data Protection Regulation" in gdpr
    assert "data protection authority" in gdpr
    assert "California Privacy Protection Agency" in ccpa
    assert "complain" not in own


def test_a_provisional_letter_says_that_nothing_was_deleted_yet(both: tuple[Statement, Statement]) -> None:
    provisional, final = (letter(statement, OURS[0]) for statement in both)
    assert "have not been deleted yet" in provisional
    assert "has been carried out" not in provisional
    assert "has been carried out" in final
    assert "our data store" in final
    assert "We kept:" in final


def test_what_comes_from_records_is_escaped(facts: Facts) -> None:  # noqa: F811
    evil = "<script>alert(1)</script>"
    first = facts.verdict.checks[0].model_copy(update={"reason": evil})
    verdict: VerdictRecord = facts.verdict.model_copy(update={"checks": (first, *facts.verdict.checks[1:])})
    exported = facts.exported.model_copy(update={"made_from": facts.exported.made_from | {"verdict": verdict.digest()}})
    changed = replace(facts, verdict=verdict, exported=exported, registered=None, rolled_out=None, promotion=None)
    text = certificate_page(statement_of(changed, AT), "a" * 64)
    assert evil not in text
    assert html.escape(evil) in text, "control"


def test_the_page_shows_every_check_row_and_limitation(both: tuple[Statement, Statement]) -> None:
    for statement in both:
        text, p = html.unescape(certificate_page(statement, "a" * 64)), statement.predicate
        for one in (*p.judged.controls, *p.judged.checks):
            assert f">{one.id}</b> {one.title}" in text
        for said in (*p.limitations, *(row.note for row in p.coverage), *(line.verified for line in p.purge.lines if p.purge)) if p.purge else ():
            assert said in text
        assert f"{p.phase} certificate" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: `apt-get install chromium`, then run this file again")
def test_a_letter_is_one_printed_page(both: tuple[Statement, Statement], tmp_path: Path) -> None:
    def pages_of(text: str, name: str) -> int:
        source, printed = tmp_path / f"{name}.html", tmp_path / f"{name}.pdf"
        source.write_text(text)
        flags: list[Any] = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--no-pdf-header-footer"]
        subprocess.run([str(CHROMIUM), *flags, f"--print-to-pdf={printed}", source.as_uri()], capture_output=True, timeout=120, check=True)
        return len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))

    for number, statement in enumerate(both):
        assert pages_of(letter(statement, OURS[0]), f"letter-{number}") == 1
    assert pages_of(certificate_page(both[1], "a" * 64), "certificate") > 1, "control"


def test_control_a_reported_check_is_shown_apart(facts: Facts) -> None:  # noqa: F811
    verdict: VerdictRecord = facts.verdict.model_copy(update={"reported": (check("F6"),)})
    exported = facts.exported.model_copy(update={"made_from": facts.exported.made_from | {"verdict": verdict.digest()}})
    changed = replace(facts, verdict=verdict, exported=exported, registered=None, rolled_out=None, promotion=None)
    assert "Tests that are only reported" in certificate_page(statement_of(changed, AT), "a" * 64)
    assert "Tests that are only reported" not in certificate_page(statement_of(facts, AT), "a" * 64)
