"""MLflow's SQLite databases without their migrations: the first one in a run of the tests is made by MLflow, and the others are copies of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow.store.db import utils
from sqlalchemy import Engine

_migrate = utils._initialize_tables


def make_empty_database(path: Path) -> None:
    """A database as MLflow makes one, which takes it a second."""
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{path}")
    _migrate(engine)
    engine.dispose()


@contextmanager
def migrated(empty: Callable[[], Path]) -> Iterator[None]:
    """New SQLite databases are copies of ``empty()``, in this process and in those that are forked from it."""

    def copy(engine: Engine) -> None:
        if engine.dialect.name != "sqlite":
            _migrate(engine)
            return
        try:
            with closing(sqlite3.connect(empty())) as source, closing(engine.raw_connection()) as target:
                source.backup(target.driver_connection)
        except sqlite3.Error:
            _migrate(engine)  # a disk that is full is MLflow's to tell

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", copy)
        yield
