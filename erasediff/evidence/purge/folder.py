"""Purge a folder file by file; links are removed, not followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from erasediff.errors import BadInput, Unreachable
from erasediff.evidence.purge.store import PurgeItem


@dataclass(frozen=True)
class FolderPlace:
    """A folder whose content must be deleted, or a single file.

    ``within`` must exist: an unmounted volume does not prove absence. The empty folder itself may stay.
    """

    root: Path
    within: Path
    what: str = "files"

    def items(self) -> tuple[PurgeItem, ...]:
        """Every file below the folder, then the empty folders."""
        if not self.within.is_dir():
            raise Unreachable("a folder to purge does not exist: mount its volume, or correct the setting that names it.")
        if self.root.is_symlink():
            raise BadInput("a folder to purge is a link: give the folder that it points to.")
        if self.root.is_file():
            return (PurgeItem(self.what, partial(remove_file, self.root)),)
        return tuple(folder_items(self.root, self.what, self.root))


def folder_items(root: Path, what: str, keep: Path) -> Iterator[PurgeItem]:
    """Everything in a folder, and the folder itself unless it is ``keep``; nothing if it does not exist.

    Raises:
        OSError: it cannot be read.
    """
    if not root.is_dir():
        return
    for folder, names, files in os.walk(root, topdown=False, onerror=_refuse):
        here = Path(folder)
        links = [name for name in names if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield PurgeItem(what, partial(remove_file, here / name, keep))
        if here != keep and not files and not names:
            yield PurgeItem("empty folders", partial(_remove_folder, here))


def remove_file(path: Path, root: Path | None = None) -> None:
    """Remove a file, and folders below ``root`` that become empty, since their names may hold personal data."""
    path.unlink(missing_ok=True)
    for folder in path.parents if root is not None else ():
        if folder == root or (folder.is_dir() and any(folder.iterdir())):
            return
        _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    if folder.is_dir():
        folder.rmdir()


def _refuse(error: OSError) -> None:
    raise error
