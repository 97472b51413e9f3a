"""The store "owner's places": folders and prefixes from the configuration that hold only this request's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erasediff.errors import BadInput
from erasediff.evidence.purge.places import local, place_for
from erasediff.evidence.purge.store import Listing, Store


def owned_store(places: Sequence[str], workdir: Path, needed: Sequence[str]) -> Store:
    """The operator's places.

    Args:
        places: from the attempt's configuration.
        workdir: has its own stores, so no place may lie in it.
        needed: addresses that hold other data: the workdir, the dataset, the DVC remote, published models.
    """

    def look() -> Listing:
        for number, place in enumerate(places, start=1):
            if any(_holds(place, other) for other in needed) or _holds(str(workdir), place):
                raise BadInput(f"place {number} of purge.places holds other data, or lies in the workdir: correct purge.places.")
        return Listing(tuple(item for place in places for item in place_for(place, _parent(place)).items()))

    return Store("owner's places", look, "listed every place again, in S3 with all versions")


def _parent(place: str) -> str:
    return place if place.startswith("s3://") else str(Path(place).parent)


def _holds(place: str, other: str) -> bool:
    """Whether an address is in a place."""
    if place.startswith("s3://") or "://" in other:
        return f"{other.rstrip('/')}/".startswith(f"{place.rstrip('/')}/")
    return local(other).resolve().is_relative_to(Path(place).resolve())
