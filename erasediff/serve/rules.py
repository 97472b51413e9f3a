"""The rules as they are now: read again when their file has changed, so that a label is suppressed without a restart."""

from __future__ import annotations

import threading
from pathlib import Path

from erasediff.errors import BadInput, EraseDiffError
from erasediff.records.serving import ServingRules, load_rules

_Stamp = tuple[int, int, int]


class RulesFile:
    """A file of rules; without one there are none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read: tuple[_Stamp, ServingRules | EraseDiffError] | None = None

    def now(self) -> ServingRules:
        """The rules in force.

        A file that became unreadable stops everything: somebody meant to forbid something, and nobody knows what.

        Raises:
            BadInput: the file is missing, unreadable, or does not follow the schema.
        """
        if self._path is None:
            return ServingRules()
        with self._lock:
            stamp = self._stamp(self._path)
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, _read(self._path)
            found = self._read[1]
        if isinstance(found, EraseDiffError):
            raise found
        return found

    @staticmethod
    def _stamp(path: Path) -> _Stamp:
        """What changes when the file does; a mounted ConfigMap is changed by renaming a folder, so the inode is part of it."""
        try:
            status = path.stat()
        except OSError as error:
            raise BadInput(f"the rules {path} cannot be read ({error.strerror}): restore the file.") from None
        return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> ServingRules | EraseDiffError:
    try:
        return load_rules(path)
    except EraseDiffError as error:
        return error
