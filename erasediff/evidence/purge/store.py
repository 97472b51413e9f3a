"""The interface of stores: how the purge lists a store and removes its items.

A store is a function that opens a new connection and lists the items to delete, and what stays and why. The purge calls it, removes the items, and
calls it again: the second listing shows whether the deletion worked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from erasediff.records.purging import Action, StoreName

RETRY_LATER = "end it and purge again"
"""The end of a reason for keeping something only for now: such a purge must run again later."""


@dataclass(frozen=True)
class PurgeItem:
    """One item to delete. ``what`` is its kind; ``remove`` may be repeated after a kill."""

    what: str
    remove: Callable[[], None]
    action: Action = "deleted"


@dataclass(frozen=True)
class Kept:
    """Items of one kind that stay."""

    what: str
    count: int
    reason: str


@dataclass(frozen=True)
class Listing:
    """The listing of a store, in the order of deletion."""

    items: tuple[PurgeItem, ...] = ()
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True)
class Store:
    """A store that may hold data of an erased class.

    Attributes:
        name: its name in the record.
        look: lists the store; raises ``EraseDiffError`` if it cannot be listed.
        proof: how the second listing works, for the record.
        needs: stores that must be purged before this one.
    """

    name: StoreName
    look: Callable[[], Listing]
    proof: str
    needs: tuple[StoreName, ...] = ()
