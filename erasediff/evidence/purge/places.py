"""Places that are purged completely: a folder, or a prefix in an S3 bucket."""

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
