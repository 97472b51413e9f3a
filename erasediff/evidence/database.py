"""The ledger's tables in SQLite or PostgreSQL, and the transactions around them.

A writer locks the ledger's head row first: ``BEGIN IMMEDIATE`` in SQLite, ``SELECT … FOR UPDATE`` in PostgreSQL. So writes are serial across
processes and machines. Readers see one consistent snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput, IntegrityError, Outage, Unreachable
from erasediff.evidence.chain import GENESIS
from erasediff.retries import retried

FILE = "ledger.db"
SCHEMA, BY_POSITIONS = 2, 1
"""The version of the tables, and the one whose requests told classes by positions."""
WAIT_SECONDS = 30
"""How long a writer waits for the lock, and a client for a server."""
_CREATION_LOCK = 7_210_245_511  # an arbitrary number for this project's lock

METADATA = MetaData()
HEAD = Table(
    "ledger_head",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("schema", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
)
REQUESTS = Table(
    "ledger_requests",
    METADATA,
    Column("id", String(18), primary_key=True),
    Column("filing", Text, nullable=False),
    Column("live", String(64), unique=True),  # NULL once it ended without an erasure, so that the same content can be filed again
    Column("state", String(16), nullable=False),
    Column("held", Boolean, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("confirm_by", BigInteger),
    Column("head", String(64), nullable=False),
    Index("ledger_requests_due", "state", "due"),
)
EVENTS = Table(
    "ledger_events",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("request", String(18), nullable=False, index=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("body", Text, nullable=False),
)


class LedgerDatabase:
    """A ledger's database; every transaction has its own connection."""

    def __init__(self, where: str | Path) -> None:
        """Take a URL or a workdir, without connecting.

        Raises:
            BadInput: the URL is not valid.
        """
        self.url = _url_of(where)
        self.name = f"the ledger {display_url(self.url)}"
        self.engine = _engine(self.url)

    def create(self) -> None:
        """Create missing tables; concurrent calls are safe."""
        if self.url.get_backend_name() == "sqlite":
            Workdir.open(Path(str(self.url.database)).parent)
        with self.writing() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
            METADATA.create_all(connection)
            if connection.execute(select(HEAD.c.id)).first() is None:
                connection.execute(insert(HEAD).values(id=1, schema=SCHEMA, number=0, digest=GENESIS))
        self.check()

    def check(self) -> None:
        """Check that the ledger exists and has this version's schema.

        Raises:
            BadInput: it does not exist, or has another version.
        """
        missing = f"there is no ledger at {display_url(self.url)}: file a request first, or correct --workdir or ERASEDIFF_LEDGER."
        if self.url.get_backend_name() == "sqlite" and not Path(str(self.url.database)).is_file():
            raise BadInput(missing)
        with self.reading() as connection:
            if not inspect(connection).has_table(HEAD.name):
                raise BadInput(missing)
            schema = connection.execute(select(HEAD.c.schema)).scalar_one_or_none()
        if schema == BY_POSITIONS:
            raise BadInput(f"{self.name} tells classes by positions, as an earlier version of EraseDiff did: run `erasediff migrate`.")
        if schema != SCHEMA:
            raise BadInput(f"{self.name} has version {schema}, and this EraseDiff needs version {SCHEMA}: use the EraseDiff that wrote it.")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write. Its server is waited for; a transaction that is cut off later leaves nothing behind."""
        connected = retried(self._connected)
        with self._explained(), connected.execution_options(ledger_writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only transaction on one snapshot. Its server is waited for."""
        connected = retried(self._connected)
        with self._explained(), connected as connection:
            if self.engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    def _connected(self) -> Connection:
        with self._explained():
            return self.engine.connect()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._sentence(error) from None  # its traceback would quote the statement's values

    def _sentence(self, error: DBAPIError) -> Exception:
        """The error as a sentence with a remedy; an unknown error is returned as it is."""
        reason = str(error.orig).lower()
        for words, mend in _REMEDIES.items():
            if words in reason:
                return BadInput(f"{self.name} cannot be used: {mend}")
        if "malformed" in reason or "not a database" in reason:
            return IntegrityError(f"{self.name} is damaged or not a database: restore a copy, and verify it with `erasediff status`.")
        if isinstance(error, OperationalError | InterfaceError):
            kind = Outage if is_outage(error) else Unreachable
            return kind(f"{self.name} does not answer: start its server, or correct ERASEDIFF_LEDGER.")
        return error


def is_outage(error: Exception) -> bool:
    """Whether a database's server is away, starts or ends, or has no connection left; a file is never away."""
    if not isinstance(error, OperationalError | InterfaceError) or type(error.orig).__module__.startswith("sqlite3"):
        return False
    return not any(words in str(error.orig).lower() for words in _REMEDIES)


_REMEDIES = {
    "database is locked": "other processes kept it locked; run the same command again.",
    "lock timeout": "other processes kept it locked; run the same command again.",
    "database or disk is full": "no space is left; free some and run the same command again.",
    "no space left": "no space is left; free some and run the same command again.",
    "readonly": "it is read-only; change its permissions.",
    "read-only": "it is read-only; change its permissions.",
    "permission denied": "its role may not do this; see docs/requests.md for what it needs.",
    "unable to open": "its file cannot be opened; correct --workdir, ERASEDIFF_LEDGER or the permissions.",
    "password authentication failed": "its server refuses these credentials; correct ERASEDIFF_LEDGER.",
    "no password supplied": "its server asks for a password; correct ERASEDIFF_LEDGER.",
    "does not exist": "its server lacks a database, a role or a table; make it, or correct ERASEDIFF_LEDGER.",
    "pg_hba.conf": "its server does not let this host or role in; see its pg_hba.conf, or correct ERASEDIFF_LEDGER.",
    "but ssl was required": "its server does not speak TLS; correct sslmode in ERASEDIFF_LEDGER.",
    "could not translate host name": "its host name is unknown; correct ERASEDIFF_LEDGER.",
}


def display_url(url: URL) -> str:
    """A database's address without user, password and options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.get_backend_name()}://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def _url_of(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser().absolute() / FILE))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise BadInput("ERASEDIFF_LEDGER is not a valid address: give postgresql://HOST/DATABASE or sqlite:///FILE.") from None
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername == "sqlite" and url.database and url.database != ":memory:" and not url.query:
        return url.set(database=str(Path(url.database).expanduser().absolute()))
    raise BadInput(f"a ledger cannot use {url.drivername}: give postgresql://HOST/DATABASE or sqlite:///FILE.")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": WAIT_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        # Without this, a database with the encoding SQL_ASCII answers in bytes.
        options = {"connect_timeout": WAIT_SECONDS, "client_encoding": "utf8"}
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=options)
    except ImportError:
        raise BadInput("no driver for PostgreSQL is installed: install erasediff[postgres].") from None
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _set_up_sqlite(connection: object, _: object) -> None:
    """Disable the driver's own transactions: it begins them too late. See :func:`_begin_sqlite`."""
    connection.isolation_level = None  # type: ignore[attr-defined]
    connection.execute("PRAGMA synchronous = FULL")  # type: ignore[attr-defined]


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("ledger_writes") else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'")
