"""The store "keys": the key that the commitments are made with, last of all."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from erasediff.evidence.purge.folder import remove_file
from erasediff.evidence.purge.seam import Listing, Store, Thing
from erasediff.records.purging import StoreName

BEFORE: tuple[StoreName, ...] = (
    "workdir",
    "dvc remote",
    "dvc cache",
    "mlflow artifacts",
    "mlflow registry",
    "models",
    "pipeline artifacts",
    "published models",
    "owner's places",
)


def keys_store(key: Path) -> Store:
    """A request's key. Without it nobody can hold an image against what stands in the records."""

    def look() -> Listing:
        return Listing((Thing("keys of commitments", partial(remove_file, key)),) if key.exists() else ())

    return Store("keys", look, "looked for the key anew", BEFORE)
