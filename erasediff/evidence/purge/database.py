"""MLflow's database. MLflow's own interface cannot delete rows or show that none is left.

A server soft-deletes runs and versions: the rows and their tags stay. ``mlflow gc`` deletes four kinds of rows of a run, no versions, and on SQLite
leaves the bytes in the file. Here every table that refers to a run or a version is found in the database's schema, so that a table of a new MLflow
release is included. The rows of one run are deleted in one transaction, and SQLite overwrites them with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, MetaData, String, Table, create_engine, delete, event, func, or_, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from erasediff.errors import BadInput, Outage, Unreachable
from erasediff.evidence.database import is_outage
from erasediff.retries import retried

T = TypeVar("T")
RUN_COLUMNS = frozenset({"run_uuid", "run_id", "source_run_id", "source_id", "destination_id"})
_VERSIONS, _ALIASES = "model_versions", "registered_model_aliases"
_WORKSPACE = "default"
_HIDDEN = "Deleted_Internal"


class MlflowDatabase:
    """MLflow's database, with new connections."""

    def __init__(self, uri: str) -> None:
        """Connect and read the schema.

        Raises:
            BadInput: the address is not valid.
            Unreachable: the database does not answer, or is not MLflow's.
        """
        try:
            self._engine = create_engine(uri, poolclass=NullPool)
        except (ArgumentError, ImportError, SQLAlchemyError):
            raise BadInput(
                "the address of MLflow's database cannot be opened: correct ERASEDIFF_MLFLOW_BACKEND_STORE_URI, or install its driver."
            ) from None
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _overwrite)
        self._metadata = MetaData()
        self._explained(lambda: self._metadata.reflect(self._engine))
        if not {"runs", _VERSIONS} <= set(self._metadata.tables):
            raise BadInput("the configured database is not MLflow's: correct ERASEDIFF_MLFLOW_BACKEND_STORE_URI.")

    def rows_of_run(self, run_id: str) -> int:
        """The number of rows in all tables that refer to a run."""
        return self._explained(lambda: self._count((table, _refers(table, run_id)) for table in self._run_tables()))

    def delete_run(self, run_id: str) -> None:
        """Delete all rows that refer to a run, in one transaction."""
        self._delete((table, _refers(table, run_id)) for table in self._run_tables())

    def versions(self, name: str) -> dict[int, bool]:
        """The versions of a model that have a row, and whether each is hidden (soft-deleted)."""
        table = self._metadata.tables[_VERSIONS]
        wanted = select(table.c.version, table.c.current_stage).where(_of_model(table, name))
        return {int(number): stage == _HIDDEN for number, stage in self._explained(lambda: self._rows(wanted))}

    def rows_of_version(self, name: str, number: int) -> int:
        """The number of rows in all tables that refer to a version."""
        return self._explained(lambda: self._count((table, _is_version(table, name, number)) for table in self._version_tables()))

    def delete_version(self, name: str, number: int) -> None:
        """Delete all rows that refer to a version, in one transaction."""
        self._delete((table, _is_version(table, name, number)) for table in self._version_tables())

    def _run_tables(self) -> list[Table]:
        """Tables with rows of runs, children before parents. A version's row names its run but is not part of it."""
        return [t for t in reversed(self._metadata.sorted_tables) if _run_columns(t) and t.name != _VERSIONS]

    def _version_tables(self) -> list[Table]:
        """Tables of versions, of aliases, and with foreign keys to versions. Other tables of MLflow have a name and a version too."""
        return [t for t in reversed(self._metadata.sorted_tables) if t.name in (_VERSIONS, _ALIASES) or _refers_to_versions(t)]

    def _rows(self, wanted: Any) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(wanted))

    def _count(self, wanted: Iterable[tuple[Table, ColumnElement[bool]]]) -> int:
        with self._engine.connect() as connection:
            return sum(connection.scalar(select(func.count()).select_from(table).where(condition)) or 0 for table, condition in wanted)

    def _delete(self, wanted: Iterable[tuple[Table, ColumnElement[bool]]]) -> None:
        def act() -> None:
            with self._engine.begin() as connection:
                for table, condition in wanted:
                    connection.execute(delete(table).where(condition))
            self._checkpoint()

        self._explained(act)

    def _checkpoint(self) -> None:
        """Truncate SQLite's write-ahead log, which still holds the old pages."""
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _explained(self, action: Callable[[], T]) -> T:
        return retried(lambda: self._once(action))

    @staticmethod
    def _once(action: Callable[[], T]) -> T:
        try:
            return action()
        except SQLAlchemyError as error:  # its message quotes the statement's values
            kind = Outage if is_outage(error) else Unreachable
            raise kind(f"MLflow's database does not answer or refuses ({type(error).__name__}): check it and run the purge again.") from error


def _overwrite(connection: Any, _: object) -> None:
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA busy_timeout = 20000")


def _run_columns(table: Table) -> list[ColumnElement[str]]:
    return [column for name, column in table.columns.items() if name in RUN_COLUMNS and isinstance(column.type, String)]


def _refers(table: Table, run_id: str) -> ColumnElement[bool]:
    return or_(*(column == run_id for column in _run_columns(table)))


def _refers_to_versions(table: Table) -> bool:
    return any(key.column.table.name == _VERSIONS for key in table.foreign_keys) and {"name", "version"} <= set(table.columns.keys())


def _is_version(table: Table, name: str, number: int) -> ColumnElement[bool]:
    return _of_model(table, name) & (table.c.version == number)


def _of_model(table: Table, name: str) -> ColumnElement[bool]:
    """A model's rows in MLflow's default workspace."""
    named: ColumnElement[bool] = table.c.name == name
    return named & (table.c.workspace == _WORKSPACE) if "workspace" in table.columns else named
