"""What several workers of one run of the tests need and one of them makes."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

_folder: Path | None = None


def share_in(folder: Path) -> None:
    """Keep it there; tests/conftest.py says where."""
    global _folder
    _folder = folder


def shared(name: str, make: Callable[[Path], object]) -> Path:
    """A file or folder that is there already, or that this worker makes while the others wait. Nobody may change it."""
    assert _folder is not None, "tests/conftest.py has not said where"
    path = _folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"{path.name}.unfinished")
            make(unfinished)
            unfinished.rename(path)
    return path
