"""The serving rules: reloaded when their file changes, so that classes are suppressed without a restart."""

from __future__ import annotations

import threading
from pathlib import Path

from erasediff.errors import EraseDiffError
from erasediff.records.serving import ServingRules, parse_rules, read_rules


class RulesFile:
    """A file of serving rules; without a file there are no rules."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._parsed: tuple[bytes, ServingRules | EraseDiffError] | None = None

    def now(self) -> ServingRules:
        """The rules in force.

        The file is read each time and parsed when its content changed: a change can leave its size and time as they were. An unreadable file
        stops serving, since its rules are unknown.

        Raises:
            BadInput: the file is missing, unreadable, or does not follow the schema.
        """
        if self._path is None:
            return ServingRules()
        with self._lock:
            content, source = read_rules(self._path)
            if self._parsed is None or self._parsed[0] != content:
                self._parsed = content, _parsed(content, source)
            found = self._parsed[1]
        if isinstance(found, EraseDiffError):
            raise found
        return found


def _parsed(content: bytes, source: str) -> ServingRules | EraseDiffError:
    try:
        return parse_rules(content, source)
    except EraseDiffError as error:
        return error
