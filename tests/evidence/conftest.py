"""Ledgers on both databases, keys, a run, and a final certificate with everything that it is about."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from erasediff.attempts.attempt import Attempt
from erasediff.evidence.database import METADATA, LedgerDatabase
from erasediff.evidence.keys import PRIVATE, PUBLIC
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.verification import CertificateFiles, VerifiedCertificate, verify
from erasediff.records.purging import PurgeRecord
from tests.certified import REQUEST, file_requests, promoted_run, purge_of, request
from tests.evidence.postgresql import postgresql_server
from tests.issuer import issuer

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="session")
def needs_model_signing() -> None:
    """model-signing 1.1 imports pyOpenSSL and does not ask for it."""
    if importlib.util.find_spec("OpenSSL") is None:
        pytest.skip("pyOpenSSL is not installed, without which model-signing cannot be imported: run `make install`, or pip install pyopenssl")


@pytest.fixture(scope="session")
def keys() -> Path:
    """The folder of the key that signed what the run exported."""
    return issuer()


@pytest.fixture(scope="session")
def promoted(tmp_path_factory: pytest.TempPathFactory, tiny_unet: Callable[..., torch.nn.Module]) -> Attempt:
    """A run as far as its promotion; not to be changed."""
    return promoted_run(tmp_path_factory.mktemp("promoted") / "work", tiny_unet)


@pytest.fixture
def run(promoted: Attempt, tmp_path: Path) -> Attempt:
    """A copy of it, to be changed."""
    return copy_of(promoted, tmp_path / "work")


def copy_of(promoted: Attempt, to: Path) -> Attempt:
    shutil.copytree(promoted.workdir.root, to)
    from erasediff.attempts.workdir import Workdir

    return Workdir.open(to).attempt(promoted.name)


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and what it is about."""

    run: Attempt
    keys: Path

    @property
    def certificate(self) -> Path:
        return self.run.folder / "certificate.dsse.json"

    @property
    def key(self) -> Path:
        return self.keys / PUBLIC

    @property
    def model(self) -> Path:
        from erasediff.records.core import ErasedRecord

        return self.run.workdir.models / self.run.need(ErasedRecord).model.weights.uri

    @property
    def onnx(self) -> Path:
        return self.run.folder / "onnx/model.onnx"

    @property
    def purge(self) -> Path:
        return self.run.path(PurgeRecord)

    def presented(self, **changes: Path | None) -> CertificateFiles:
        return CertificateFiles(**({"certificate": self.certificate, "key": self.key} | changes))

    def verify(self, **changes: Path | None) -> VerifiedCertificate:
        return verify(self.presented(**changes))


@pytest.fixture(scope="session")
def issued(promoted: Attempt, keys: Path, tmp_path_factory: pytest.TempPathFactory, needs_model_signing: None) -> Issued:
    """A final certificate for two requests; not to be changed."""
    from erasediff.steps.certify import certify

    run = copy_of(promoted, tmp_path_factory.mktemp("issued") / "work")
    requests = request(1), request(2)
    file_requests(run, *requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERASEDIFF_SIGNING_KEY", str(keys / PRIVATE))
        certify(run)
        run.workdir.request_key(REQUEST).unlink()
        purge_of(run, *requests)
        assert certify(run).phase == "final"
    return Issued(run, keys)


@pytest.fixture
def signed_by(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name the key."""
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(keys / PRIVATE))


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
    METADATA.drop_all(LedgerDatabase(url).engine)  # of the test before, whatever it made of them
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
