"""Places that can be purged whole: a folder, or a prefix in an S3 bucket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from erasediff.errors import BadInput
from erasediff.evidence.purge.folder import FolderPlace
from erasediff.evidence.purge.s3 import S3Place
from erasediff.evidence.purge.store import PurgeItem


class Place(Protocol):
    """Where bytes lie that all have to go."""

    def items(self) -> Sequence[PurgeItem]:
        """Everything that lies there now, asked by a connection of its own."""


def place_for(address: str, within: str, endpoint_url: str | None = None) -> Place:
    """The place of an address.

    Args:
        address: a folder, ``file://`` or ``s3://BUCKET/PREFIX``.
        within: a folder that has to be there, since an address on a volume that is not mounted looks like one that was purged.
        endpoint_url: of an S3-compatible store.

    Raises:
        BadInput: another kind of address, about which nobody can say that it is empty.
    """
    if address.startswith("s3://"):
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not bucket or not prefix.strip("/"):
            raise BadInput("an address in S3 names no bucket or no prefix, and a whole bucket is never purged: correct it to s3://BUCKET/PREFIX.")
        return S3Place(bucket, prefix.strip("/"), endpoint_url)
    if "://" in address and not address.startswith("file://"):
        raise BadInput(f"the purge knows folders and s3:// addresses, and this one is {urlsplit(address).scheme}://: delete what lies there by hand.")
    return FolderPlace(local(address), local(within))


def local(address: str) -> Path:
    """The folder of a path or a ``file://`` address."""
    return Path(unquote(urlsplit(address).path)) if address.startswith("file://") else Path(address).expanduser()
