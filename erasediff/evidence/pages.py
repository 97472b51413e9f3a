"""Render a certificate as an HTML page, and a letter to each requester without the model's details."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from erasediff.evaluate.report.words import percent, quantity
from erasediff.records.certificate import Predicate, Statement
from erasediff.records.core import Check, left_out_in_words
from erasediff.records.requests import Regime, RequestFacts

STORES = {
    "workdir": "our working copies",
    "dvc remote": "our data store",
    "dvc cache": "the cache of that store",
    "mlflow artifacts": "files of our experiments",
    "mlflow registry": "our list of models",
    "models": "earlier models",
    "pipeline artifacts": "temporary files of the erasure itself",
    "published models": "models that we published",
    "keys": "keys that could have linked our records to the data",
}
REGIMES = {
    Regime.GDPR: "the General Data Protection Regulation, Article 17",
    Regime.CCPA: "the California Consumer Privacy Act",
    Regime.OWN: "our own rules",
}
COMPLAINTS = {
    Regime.GDPR: "You may ask us to review this, and you may complain to your data protection authority.",
    Regime.CCPA: "You may ask us to review this, and you may complain to the California Privacy Protection Agency.",
    Regime.OWN: "You may ask us to review this.",
}


@dataclass(frozen=True)
class Row:
    """A check with its numbers as text."""

    check: Check
    value: str
    bound: str
    limit: str


def certificate_page(statement: Statement, key_id: str) -> str:
    """The certificate as one self-contained HTML page without scripts."""
    predicate = statement.predicate
    return _render(
        "certificate.html.j2",
        statement=statement,
        p=predicate,
        digest=statement.digest(),
        key_id=key_id,
        confidence=percent(1 - predicate.judged.alpha),
        controls=_rows(predicate.judged.controls),
        checks=_rows(predicate.judged.checks),
        reported=_rows(predicate.judged.reported),
        left_out=left_out_in_words(predicate.judged.left_out),
    )


def letter(statement: Statement, request: RequestFacts | None) -> str:
    """A one-page letter to a requester: what it is about, and what was done, tested and deleted. It names no digest and no other request."""
    predicate = statement.predicate
    regime = Regime.OWN if request is None else request.regime
    return _render(
        "letter.html.j2",
        p=predicate,
        request=request,
        reference=statement.digest()[:16],
        regime=REGIMES[regime],
        complaint=COMPLAINTS[regime],
        tests=len(predicate.judged.checks),
        confidence=percent(1 - predicate.judged.alpha),
        deleted=_deleted(predicate),
        kept=_kept(predicate),
        purged_on=_purged_on(predicate),
    )


def _rows(checks: tuple[Check, ...]) -> list[Row]:
    return [
        Row(check, quantity(check.value, check.unit), quantity(check.bound, check.unit), quantity(check.threshold, check.unit)) for check in checks
    ]


def _deleted(predicate: Predicate) -> list[str]:
    lines = predicate.purge.lines if predicate.purge else ()
    return list(dict.fromkeys(STORES[line.store] for line in lines if line.action == "deleted" and line.count))


def _kept(predicate: Predicate) -> list[str]:
    lines = predicate.purge.lines if predicate.purge else ()
    return list(dict.fromkeys(f"{STORES[line.store]}: {line.verified}" for line in lines if line.action == "kept"))


def _purged_on(predicate: Predicate) -> datetime | None:
    return max(line.at for line in predicate.purge.lines) if predicate.purge else None


def _date(at: datetime) -> str:
    return f"{at.day} {at:%B %Y}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["date"] = _date
    return environment


def _render(template: str, **content: Any) -> str:
    return _environment().get_template(template).render(**content)
