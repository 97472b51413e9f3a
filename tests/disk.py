"""A real disk of a few megabytes, that can be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs at ``folder``, which is made."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: run as root, or in `unshare --user --map-root-user --mount` ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Take what is free but for some bytes; the file that takes it."""
    free, filler = os.statvfs(disk), disk / "filler"
    with filler.open("wb") as handle:
        handle.write(b"x" * max(0, free.f_bavail * free.f_frsize - leave))
    return filler
