"""The signed list of revocations: reloaded when its file changes, and only replaced by a later list.

Anyone who can write the file can remove it or restore an old list. So a list that does not verify, or is older than the last one, is logged and
ignored. Nothing is served until the first list verifies.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from erasediff.envelopes import MAX_ENVELOPE_BYTES, PublicKey, parse_revocations
from erasediff.errors import BadInput, EraseDiffError
from erasediff.files import read_bounded
from erasediff.records.envelopes import RevocationList
from erasediff.records.serving import ServingRules

log = logging.getLogger("erasediff.serve")
NO_KEY = "a list of revocations is verified with the issuer's key: set --key to its signing-key.pub."


class RulesSource(Protocol):
    """A source of the serving rules in force."""

    def now(self) -> ServingRules:
        """The rules in force."""


@dataclass(frozen=True)
class RevocationsState:
    """For metrics: the number of the list in force (0 without one), and whether the file holds that list."""

    number: int
    good: bool


class RevocationsFile:
    """A file with a signed list of revocations."""

    def __init__(self, path: Path, key: PublicKey) -> None:
        self._path, self._key, self._lock = path, key, threading.Lock()
        self._read: bytes | str | None = None
        self._last: RevocationList | None = None
        self._problem: str | None = None

    def now(self) -> RevocationList:
        """The last list that verified.

        Raises:
            BadInput: no list has verified yet.
        """
        with self._lock:
            self._look()
            if self._last is None:
                raise BadInput(self._problem or f"the revocation list {self._path} was not read yet.")
            return self._last

    def state(self) -> RevocationsState:
        """The current state, after reloading the file if it changed."""
        with self._lock:
            self._look()
            return RevocationsState(self._last.number if self._last else 0, self._problem is None)

    def _look(self) -> None:
        content = self._content()
        if content == self._read:
            return
        self._read = content
        try:
            self._last, self._problem = self._newer(self._parse(content)), None
        except EraseDiffError as error:
            self._problem = str(error)
            in_force = "nothing is served" if self._last is None else f"list {self._last.number} stays in force"
            log.error("%s; %s", self._problem.rstrip("."), in_force)

    def _newer(self, found: RevocationList) -> RevocationList:
        last = self._last
        if last is None or found.number > last.number or found == last:
            return found
        raise BadInput(f"the revocation list {self._path} has number {found.number}, older than {last.number}: restore the newest list.")

    def _content(self) -> bytes | str:
        """What the file holds now, or why it cannot be read."""
        try:
            return read_bounded(self._path, MAX_ENVELOPE_BYTES, "the revocation list")
        except BadInput as error:
            return str(error)

    def _parse(self, content: bytes | str) -> RevocationList:
        if isinstance(content, str):
            raise BadInput(content)
        return parse_revocations(content, self._key, f"the revocation list {self._path}")


@dataclass(frozen=True)
class RulesAndRevocations:
    """The rules combined with the signed list of revocations."""

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


def open_revocations(path: Path | None, key: PublicKey | None) -> RevocationsFile | None:
    """The configured file, if any.

    Raises:
        BadInput: there is no key.
    """
    if path is None:
        return None
    if key is None:
        raise BadInput(NO_KEY)
    return RevocationsFile(path, key)
