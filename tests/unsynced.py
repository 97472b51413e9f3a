"""No waiting for the disk: nothing here is to outlive the machine's power, and each of MLflow's migrations waited for it a hundred times.

What SIGKILL and a full disk leave behind is the same: the kernel has what was written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event


@contextmanager
def unsynced() -> Iterator[None]:
    """``os.fsync`` and SQLite's own do nothing in this process and in those that are forked from it."""
    event.listen(Engine, "connect", _unsynced)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    event.remove(Engine, "connect", _unsynced)


def _unsynced(connection: Any, _record: object) -> None:
    if type(connection).__module__ == "sqlite3":
        connection.execute("PRAGMA synchronous = OFF")
