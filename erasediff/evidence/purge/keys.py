"""The store "keys": the key of the commitments, deleted last."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import get_args

from erasediff.data.commitment import key_names
from erasediff.evidence.purge.folder import remove_file
from erasediff.evidence.purge.store import Listing, PurgeItem, Store
from erasediff.records.purging import StoreName

BEFORE: tuple[StoreName, ...] = tuple(store for store in get_args(StoreName) if store != "keys")


def keys_store(key: Path) -> Store:
    """A request's key. Without it, no image can be matched with the records."""

    def look() -> Listing:
        return Listing(tuple(PurgeItem("keys of commitments", partial(remove_file, name)) for name in key_names(key)))

    return Store("keys", look, "looked again for the key under its own name and temporary ones", BEFORE)
