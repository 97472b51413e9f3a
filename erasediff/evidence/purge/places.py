"""Stores at an address, a folder or a prefix in S3: the DVC remote, published models, and the owner's places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from erasediff.data.versioning import ForgetStore
from erasediff.errors import BadInput
from erasediff.evidence.purge.folder import FolderPlace
from erasediff.evidence.purge.s3 import S3Place, neighbours
from erasediff.evidence.purge.store import Kept, Listing, PurgeItem, Store
from erasediff.evidence.purge.survey import Subject, Survey
from erasediff.records.core import RollOutRecord
from erasediff.records.settings import RollOutSettings


class Place(Protocol):
    """A place whose whole content must be deleted."""

    def items(self) -> Sequence[PurgeItem]:
        """Everything in it now, listed by a new connection."""


def place_for(address: str, within: str, endpoint_url: str | None = None) -> Place:
    """The place of an address.

    Args:
        address: a folder, ``file://`` or ``s3://BUCKET/PREFIX``.
        within: a folder that must exist, since an unmounted volume looks like a purged one.
        endpoint_url: of an S3-compatible store.

    Raises:
        BadInput: the kind of address is not supported.
    """
    if address.startswith("s3://"):
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not bucket or not prefix.strip("/"):
            raise BadInput("an S3 address lacks a bucket or a prefix, and a whole bucket is never purged: correct it to s3://BUCKET/PREFIX.")
        return S3Place(bucket, prefix.strip("/"), endpoint_url)
    if "://" in address and not address.startswith("file://"):
        raise BadInput(f"the purge supports folders and s3:// addresses, not {urlsplit(address).scheme}://: delete the data there by hand.")
    return FolderPlace(local(address), local(within))


def local(address: str) -> Path:
    """The folder of a path or a ``file://`` address."""
    return Path(unquote(urlsplit(address).path)) if address.startswith("file://") else Path(address).expanduser()


def remote_store(remote: ForgetStore, recorded: frozenset[str], endpoint_url: str | None) -> Store:
    """The DVC remote of a request.

    Args:
        remote: the request's remote by the current settings.
        recorded: the remotes in the attempts' records.
        endpoint_url: of an S3-compatible store.
    """

    def look() -> Listing:
        if recorded - {remote.shown}:
            raise BadInput("a forget set of this request is in another DVC remote than the current one: set ERASEDIFF_DVC_REMOTE to that one.")
        items = place_for(remote.url, remote.url, endpoint_url).items()
        return Listing(tuple(items), (Kept("forget sets", _others(remote.url, endpoint_url), "they belong to other requests"),))

    proof = "listed every version, marker and upload again by a new client" if remote.url.startswith("s3://") else "listed the folder again"
    return Store("dvc remote", look, proof)


def _others(url: str, endpoint_url: str | None) -> int:
    parent, _, own = url.rstrip("/").rpartition("/")
    if url.startswith("s3://"):
        bucket, _, prefix = parent.removeprefix("s3://").partition("/")
        return neighbours(bucket, prefix, own, endpoint_url)
    return sum(entry.is_dir() and entry.name != own for entry in local(parent).iterdir())


def published_store(subject: Subject, found: Survey, settings: RollOutSettings) -> Store:
    """Revoked graphs in every place that roll-outs published to."""

    def look() -> Listing:
        gone = [digest for digest in found.plan.revoked if digest not in found.staying]
        places = [(root, place_for(f"{root}/{digest}", root)) for root in _roots(subject, settings) for digest in gone]
        return Listing(tuple(item for _, place in places for item in place.items()))

    return Store("published models", look, "listed every publishing address again, with all versions")


def _roots(subject: Subject, settings: RollOutSettings) -> list[str]:
    """Where graphs were published, by the records and the current settings. A graph lies at ``ROOT/<its digest>/<its manifest's digest>``."""
    records = [record for run in subject.run.workdir.attempts() if (record := run.find(RollOutRecord)) is not None and record.uri]
    roots = {record.uri.rstrip("/").rsplit("/", 2)[0] for record in records}
    if settings.backend != "none" and settings.publish_to:
        roots.add(settings.publish_to.rstrip("/"))
    return sorted(roots)


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
