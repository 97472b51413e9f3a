"""The signed list of revocations as it is now: read again when its file has changed, and only ever replaced by a later one.

Who can write the file can take it away or put an old one back. So one that does not verify, or is older than what was seen, changes nothing,
and is said; until the first one that verifies nothing is served.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from erasediff.envelopes import PublicKey, read_public_key, read_revocations
from erasediff.errors import BadInput, EraseDiffError
from erasediff.records.revocation import RevocationList
from erasediff.records.serving import ServingRules

log = logging.getLogger("erasediff.serve")
NO_KEY = "a revocation list needs the key that it is checked with: set --revocation-key to the issuer's signing-key.pub."
_Stamp = tuple[int, int, int] | None


class RulesSource(Protocol):
    """Something that knows the rules in force."""

    def now(self) -> ServingRules:
        """The rules in force."""


@dataclass(frozen=True)
class RevocationsState:
    """What metrics say: the number of the list in force, 0 without one, and whether the file that lies there is that list."""

    number: int
    good: bool


class RevocationsFile:
    """A file with a signed list."""

    def __init__(self, path: Path, key: PublicKey) -> None:
        self._path, self._key, self._lock = path, key, threading.Lock()
        self._read = False
        self._stamp: _Stamp = None
        self._last: RevocationList | None = None
        self._problem: str | None = None

    def now(self) -> RevocationList:
        """The last list that verified.

        Raises:
            BadInput: there has not been one yet.
        """
        with self._lock:
            self._look()
            if self._last is None:
                raise BadInput(self._problem or f"the revocation list {self._path} was not read yet.")
            return self._last

    def state(self) -> RevocationsState:
        """How things stand, after another look."""
        with self._lock:
            self._look()
            return RevocationsState(self._last.number if self._last else 0, self._problem is None)

    def _look(self) -> None:
        stamp = self._stamp_now()
        if self._read and stamp == self._stamp:
            return
        self._read, self._stamp = True, stamp
        try:
            self._last, self._problem = self._newer(read_revocations(self._path, self._key)), None
        except EraseDiffError as error:
            self._problem = str(error)
            in_force = "nothing is served" if self._last is None else f"list {self._last.number} stays in force"
            log.error("%s; %s", self._problem.rstrip("."), in_force)

    def _newer(self, found: RevocationList) -> RevocationList:
        last = self._last
        if last is None or found.number > last.number or found == last:
            return found
        raise BadInput(f"the revocation list {self._path} has number {found.number}, and {last.number} has been seen: put the newest one there.")

    def _stamp_now(self) -> _Stamp:
        """What changes when the file does; ``None`` without one. See :class:`erasediff.serve.rules.RulesFile`."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class RulesAndRevocations:
    """Rules with everything added that the signed list revokes."""

    rules: RulesSource
    revocations: RevocationsFile

    def now(self) -> ServingRules:
        """The rules in force.

        Raises:
            BadInput: the rules cannot be read, or no list has verified yet.
        """
        rules, listed = self.rules.now(), self.revocations.now()
        return rules.model_copy(
            update={"minimum_epoch": max(rules.minimum_epoch, listed.minimum_epoch), "revoked": (*rules.revoked, *listed.revoked)}
        )


def open_revocations(path: Path | None, key: Path | None) -> RevocationsFile | None:
    """The file that the settings name, if they do.

    Raises:
        BadInput: the key is missing, or is none.
    """
    if path is None:
        return None
    if key is None:
        raise BadInput(NO_KEY)
    return RevocationsFile(path, read_public_key(key))
