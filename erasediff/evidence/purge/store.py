"""What the purge knows of a store: how to look into it, and that what was found there can be removed one by one.

A store is one function. It opens a connection of its own each time it is called, says what is there that has to go, and what stays and why. The
purge calls it, removes the things, and calls it again: what the second look finds was not deleted, whatever the first one was told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from erasediff.records.purging import Action, StoreName

RETRY_LATER = "end it and purge again"
"""How the reason ends of what stays for a time only: a purge that says so has something left to do later."""


@dataclass(frozen=True)
class PurgeItem:
    """One thing that has to go. ``what`` is its kind; ``remove`` may be called again after a kill."""

    what: str
    remove: Callable[[], None]
    action: Action = "deleted"


@dataclass(frozen=True)
class Kept:
    """Things of one kind that stay."""

    what: str
    count: int
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a look into a store found, in the order in which the things are to be removed."""

    items: tuple[PurgeItem, ...] = ()
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True)
class Store:
    """A place where something of an erased class may lie.

    Attributes:
        name: as the record calls it.
        look: list what is there; raises an ``EraseDiffError`` where nobody can know.
        proof: how the second look asks, for the record.
        needs: stores that have to be purged before this one.
    """

    name: StoreName
    look: Callable[[], Listing]
    proof: str
    needs: tuple[StoreName, ...] = ()
