"""The serving rules: reloaded when their file changes, so that classes are suppressed without a restart."""

from __future__ import annotations

import threading
from pathlib import Path

from erasediff.errors import BadInput, EraseDiffError
from erasediff.records.serving import ServingRules, load_rules

_Stamp = tuple[int, int, int]


class RulesFile:
    """A file of serving rules; without a file there are no rules."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read: tuple[_Stamp, ServingRules | EraseDiffError] | None = None

    def now(self) -> ServingRules:
        """The rules in force.

        An unreadable file stops serving, since its rules are unknown.

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
        """A stamp that changes with the file. It includes the inode, since a mounted ConfigMap changes by renaming a folder."""
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
