"""A real PostgreSQL server on a socket in a folder of its own, started as somebody who is not root, which it refuses to run as."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "a-password-that-nobody-may-see"


def _as_nobody(command: list[str]) -> list[str]:
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command] if os.geteuid() == 0 else command


def _run(*command: str, folder: Path) -> None:
    # To a file and not to a pipe: the server inherits it, so a pipe would never end.
    with (folder / "log").open("ab") as log:
        done = subprocess.run(_as_nobody(list(command)), stdout=log, stderr=log, cwd=folder, check=False, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, (folder / "log").read_text()


@contextmanager
def postgresql_server() -> Iterator[str]:
    """The address of an empty database, as SQLAlchemy reads it; the test is skipped where no server is installed."""
    missing = [tool for tool in ("initdb", "pg_ctl", *(["setpriv"] if os.geteuid() == 0 else [])) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: `apt install postgresql`, put /usr/lib/postgresql/*/bin on PATH and run the same command again")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has at most 107 characters, so not pytest's folder
    try:
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password", folder / "log"):
            path.touch()
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        initdb, pg_ctl = (str(shutil.which(tool)) for tool in ("initdb", "pg_ctl"))
        data = str(folder / "data")
        secure = ("--username=ledger", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        _run(initdb, "--pgdata", data, *secure, "--no-sync", folder=folder)
        options = f"-c fsync=off -c listen_addresses='' -c unix_socket_directories='{folder}'"
        _run(pg_ctl, "--pgdata", data, "--wait", "--options", options, "start", folder=folder)
        try:
            yield f"postgresql://ledger:{PASSWORD}@/postgres?host={folder}"
        finally:
            _run(pg_ctl, "--pgdata", data, "--mode=immediate", "stop", folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
