"""Ledgers on both databases, an instant to begin at, and a request on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from erasediff.evidence.database import METADATA, Database
from erasediff.evidence.ledger import Ledger
from tests.evidence.postgresql import postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL server that these tests started."""
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty ledger may be made: a SQLite file, and a PostgreSQL server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url = str(request.getfixturevalue("postgresql"))
    METADATA.drop_all(Database(url).engine)  # of the test before, whatever it made of them
    return url


@pytest.fixture
def ledger(where: str) -> Ledger:
    return Ledger.open(where)


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


Tamper = Callable[[str], None]


@pytest.fixture
def tamper(ledger: Ledger) -> Tamper:
    """Run a statement on the ledger's database, past the ledger."""

    def run(statement: str) -> None:
        with ledger.database.engine.connect().execution_options(ledger_writes=True) as connection, connection.begin():
            connection.exec_driver_sql(statement)

    return run
