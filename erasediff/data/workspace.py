"""A throw-away workspace for DVC, which is always removed completely."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from erasediff.errors import BadInput
from erasediff.files import exclusive_lock, explain_disk_errors

WORKSPACE = ".forget-store"
_LOGGERS = ("dvc", "dvc_data", "dvc_objects", "dvc_s3")


@contextlib.contextmanager
def throwaway_workspace(scratch: Path) -> Iterator[Path]:
    """Yield an empty folder in ``scratch`` in which DVC runs quietly and keeps everything it writes.

    The folder is removed at the end. One that a killed process left behind is removed first.

    Raises:
        BadInput: ``scratch`` is in use by another run, cannot be written, or has a name that DVC's cache would take for another.
    """
    workspace = scratch.absolute() / WORKSPACE
    if os.path.expandvars(workspace) != str(workspace):
        # diskcache replaces variables in its folder's name: what DVC remembers of the files would be left in a folder elsewhere.
        raise BadInput(f"the path of the scratch folder {scratch} holds a $ with the name of a variable: choose another --workdir.")
    busy = f"the scratch folder {scratch} is in use by another run: wait for it or choose another."
    with explain_disk_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(scratch, busy):
            try:
                _remove(workspace)
                workspace.mkdir()
                with _environment(workspace), _silence():
                    yield workspace
            finally:
                _remove(workspace)


def _remove(workspace: Path) -> None:
    if workspace.exists():
        shutil.rmtree(workspace)


@contextlib.contextmanager
def _environment(workspace: Path) -> Iterator[None]:
    """Keep DVC inside its workspace, and its S3 client from multiplying retries."""
    values = {
        "DVC_SITE_CACHE_DIR": str(workspace / "site-cache"),
        "DVC_GLOBAL_CONFIG_DIR": str(workspace / "global-config"),
        "DVC_SYSTEM_CONFIG_DIR": str(workspace / "system-config"),
        # s3fs tries five times by itself; five more inside each would hang for minutes.
        "AWS_MAX_ATTEMPTS": "1",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Mute DVC's log and, because they follow the log's level, its progress bars."""
    # Importing DVC sets the level of its loggers, so it has to come first.
    importlib.import_module("dvc.repo")
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
