"""The store "keys": the key that the commitments are made with, last of all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import get_args

from erasediff.evidence.purge.folder import remove_file
from erasediff.evidence.purge.store import Listing, PurgeItem, Store
from erasediff.records.purging import StoreName

BEFORE: tuple[StoreName, ...] = tuple(store for store in get_args(StoreName) if store != "keys")


def keys_store(key: Path) -> Store:
    """A request's key. Without it nobody can hold an image against what stands in the records."""

    def look() -> Listing:
        return Listing((PurgeItem("keys of commitments", partial(remove_file, key)),) if key.exists() else ())

    return Store("keys", look, "looked for the key anew", BEFORE)
