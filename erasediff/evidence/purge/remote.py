"""The store "dvc remote": everything under the request's prefix."""

from __future__ import annotations

from erasediff.data.versioning import ForgetStore
from erasediff.errors import BadInput
from erasediff.evidence.purge.places import local, place_for
from erasediff.evidence.purge.s3 import neighbours
from erasediff.evidence.purge.store import Kept, Listing, Store


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
