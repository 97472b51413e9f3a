"""Purge a prefix in an S3 bucket: versions, delete markers and incomplete uploads.

A plain delete in a versioned bucket only adds a marker and keeps the object, and listings of objects do not show incomplete uploads. So all three
are listed, each version is deleted by its id, and a new client lists all three again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from erasediff.errors import BadInput, Outage, Unreachable
from erasediff.evidence.purge.store import PurgeItem
from erasediff.retries import retried
from erasediff.s3 import code, passes, s3_client

T = TypeVar("T")
_GONE = ("NoSuchKey", "NoSuchVersion", "NoSuchUpload", "404")
_NOT_THERE = ("NoSuchBucket",)


@dataclass(frozen=True)
class S3Place:
    """A key and everything below it. boto3 finds the credentials."""

    bucket: str
    prefix: str
    endpoint_url: str | None = None

    def items(self) -> tuple[PurgeItem, ...]:
        """Versions, then delete markers, then incomplete uploads.

        Raises:
            Unreachable: the store does not answer, or refuses to list.
            BadInput: there is no such bucket.
        """
        client = explained(lambda: s3_client(self.endpoint_url))
        return explained(lambda: (*self._versions(client, "Versions"), *self._versions(client, "DeleteMarkers"), *self._uploads(client)))

    def _versions(self, client: Any, kind: str) -> Iterator[PurgeItem]:
        what = {"Versions": "object versions", "DeleteMarkers": "delete markers"}[kind]
        for page in client.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=self.prefix):
            for entry in page.get(kind, ()):
                if self._ours(entry["Key"]):
                    yield PurgeItem(what, partial(self._delete, client, entry["Key"], entry["VersionId"]))

    def _uploads(self, client: Any) -> Iterator[PurgeItem]:
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self.prefix):
            for entry in page.get("Uploads", ()):
                if self._ours(entry["Key"]):
                    abort = partial(client.abort_multipart_upload, Bucket=self.bucket, Key=entry["Key"], UploadId=entry["UploadId"])
                    yield PurgeItem("multipart uploads", partial(explained, partial(_unless_gone, abort)))

    def _ours(self, key: str) -> bool:
        """Whether a key is in this place. S3 prefixes match any characters: ``a`` matches ``ab/c`` too."""
        return key == self.prefix or key.startswith(f"{self.prefix}/")

    def _delete(self, client: Any, key: str, version: str) -> None:
        delete = partial(client.delete_object, Bucket=self.bucket, Key=key, VersionId=version)
        try:
            explained(partial(_unless_gone, delete))
        except Outage:
            raise
        except Unreachable as refused:
            until = explained(lambda: self._locked(client, key, version))
            if until is None:
                raise
            raise Unreachable(f"an object version is under an object lock ({until}): run the purge again when that ends.") from refused

    def _locked(self, client: Any, key: str, version: str) -> str | None:
        """The lock on a version, or ``None``."""
        found = _or_nothing(lambda: client.head_object(Bucket=self.bucket, Key=key, VersionId=version))
        if found.get("ObjectLockLegalHoldStatus") == "ON":
            return "a legal hold"
        if "ObjectLockRetainUntilDate" in found:
            return f"{found['ObjectLockMode'].lower()} until {found['ObjectLockRetainUntilDate']:%Y-%m-%d}"
        return None


def neighbours(bucket: str, parent: str, own: str, endpoint_url: str | None) -> int:
    """The number of other prefixes beside this one.

    Raises:
        Unreachable: the store does not answer, or refuses to list.
    """

    def count() -> int:
        pages = s3_client(endpoint_url).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{parent}/" if parent else "", Delimiter="/")
        return sum(entry["Prefix"].rstrip("/").rpartition("/")[2] != own for page in pages for entry in page.get("CommonPrefixes", ()))

    return explained(count)


def explained(action: Callable[[], T]) -> T:
    """Turn S3 errors into sentences without keys, which may hold personal names; try again while the store is away.

    Raises:
        BadInput: there is no such bucket, or boto3 is not installed.
        Unreachable: the store does not answer or refuses.
    """
    return retried(lambda: _once(action))


def _once(action: Callable[[], T]) -> T:
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise BadInput("the purge of an s3:// address needs boto3: install erasediff with the extra s3.") from None
    try:
        return action()
    except ClientError as error:
        if code(error) in _NOT_THERE:
            raise BadInput("a bucket to purge does not exist: correct the setting that names it.") from None
        if passes(error):
            raise Outage(f"the S3 store answers {code(error)}: run the purge again later.") from error
        raise Unreachable(f"the S3 store refuses ({code(error)}): check the credentials and their permissions, and run the purge again.") from error
    except (BotoCoreError, Boto3Error, ValueError) as error:  # ValueError: the endpoint is not an address
        kind = Outage if passes(error) else Unreachable
        raise kind(f"the S3 store does not answer ({type(error).__name__}): check its address and run the purge again.") from error


def _unless_gone(delete: Callable[[], Any]) -> None:
    """Delete, and ignore what is already gone: the second listing decides."""
    from botocore.exceptions import ClientError

    try:
        delete()
    except ClientError as error:
        if code(error) not in _GONE:
            raise


def _or_nothing(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer, or an empty one if the store refuses."""
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError:
        return {}
