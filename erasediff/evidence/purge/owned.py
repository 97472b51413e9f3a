"""The store "owner's places": folders and prefixes that the configuration says hold this request and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erasediff.errors import BadInput
from erasediff.evidence.purge.places import local, place_for
from erasediff.evidence.purge.store import Listing, Store


def owned_store(places: Sequence[str], workdir: Path, needed: Sequence[str]) -> Store:
    """What the owner wants purged too.

    Args:
        places: from the configuration that was fixed when the attempt was opened.
        workdir: has stores of its own, so no place may lie in it.
        needed: addresses that hold more than this request: the workdir, the dataset, the DVC remote, what serves.
    """

    def look() -> Listing:
        for number, place in enumerate(places, start=1):
            if any(_holds(place, other) for other in needed) or _holds(str(workdir), place):
                raise BadInput(f"place {number} of purge.places holds more than this request, or lies in the workdir: nothing of it is deleted.")
        return Listing(tuple(item for place in places for item in place_for(place, _parent(place)).items()))

    return Store("owner's places", look, "listed every place anew, in S3 with all versions")


def _parent(place: str) -> str:
    return place if place.startswith("s3://") else str(Path(place).parent)


def _holds(place: str, other: str) -> bool:
    """Whether an address is a place or lies in it."""
    if place.startswith("s3://") or "://" in other:
        return f"{other.rstrip('/')}/".startswith(f"{place.rstrip('/')}/")
    return local(other).resolve().is_relative_to(Path(place).resolve())
