"""A prefix in an S3 bucket: every version, every delete marker, every upload that was never completed.

A plain delete in a bucket with versioning adds a marker and keeps the object, and no listing of objects shows an upload that was broken off. So
all three are listed, each version is deleted by its id, and the proof lists all three again through a client of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from erasediff.errors import BadInput, Unreachable
from erasediff.evidence.purge.store import PurgeItem
from erasediff.s3 import code, s3_client

T = TypeVar("T")
_GONE = ("NoSuchKey", "NoSuchVersion", "NoSuchUpload", "404")
_NOT_THERE = ("NoSuchBucket",)


@dataclass(frozen=True)
class S3Place:
    """What lies at a key or below it. Credentials are boto3's own."""

    bucket: str
    prefix: str
    endpoint_url: str | None = None

    def items(self) -> tuple[PurgeItem, ...]:
        """Versions, then markers, then broken uploads.

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
        """S3's prefixes end anywhere: ``a`` is one of ``ab/c`` too."""
        return key == self.prefix or key.startswith(f"{self.prefix}/")

    def _delete(self, client: Any, key: str, version: str) -> None:
        delete = partial(client.delete_object, Bucket=self.bucket, Key=key, VersionId=version)
        try:
            explained(partial(_unless_gone, delete))
        except Unreachable as refused:
            until = explained(lambda: self._locked(client, key, version))
            if until is None:
                raise
            raise Unreachable(f"an object version is under an object lock ({until}): run the purge again when that ends.") from refused

    def _locked(self, client: Any, key: str, version: str) -> str | None:
        """What holds a version, or ``None``."""
        found = _or_nothing(lambda: client.head_object(Bucket=self.bucket, Key=key, VersionId=version))
        if found.get("ObjectLockLegalHoldStatus") == "ON":
            return "a legal hold"
        if "ObjectLockRetainUntilDate" in found:
            return f"{found['ObjectLockMode'].lower()} until {found['ObjectLockRetainUntilDate']:%Y-%m-%d}"
        return None


def neighbours(bucket: str, parent: str, own: str, endpoint_url: str | None) -> int:
    """How many other prefixes lie beside one's own.

    Raises:
        Unreachable: the store does not answer, or refuses to list.
    """

    def count() -> int:
        pages = s3_client(endpoint_url).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{parent}/" if parent else "", Delimiter="/")
        return sum(entry["Prefix"].rstrip("/").rpartition("/")[2] != own for page in pages for entry in page.get("CommonPrefixes", ()))

    return explained(count)


def explained(action: Callable[[], T]) -> T:
    """Turn what S3 can answer into a sentence, without keys, which may be anybody's names.

    Raises:
        BadInput: there is no such bucket, or boto3 is not installed.
        Unreachable: the store does not answer or refuses.
    """
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise BadInput("the purge of an s3:// address needs boto3: install erasediff with the extra s3.") from None
    try:
        return action()
    except ClientError as error:
        if code(error) in _NOT_THERE:
            raise BadInput("a bucket that has to be purged does not exist: correct the setting that names it.") from None
        raise Unreachable(f"the S3 store refuses ({code(error)}): check the credentials and what they allow, and run the purge again.") from error
    except (BotoCoreError, Boto3Error, ValueError) as error:  # ValueError: an endpoint that is no address
        raise Unreachable(f"the S3 store does not answer ({type(error).__name__}): check its address and run the purge again.") from error


def _unless_gone(delete: Callable[[], Any]) -> None:
    """What was deleted meanwhile, by us before a kill or by a rule of the bucket's, is no failure: the second look decides."""
    from botocore.exceptions import ClientError

    try:
        delete()
    except ClientError as error:
        if code(error) not in _GONE:
            raise


def _or_nothing(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer, or nothing where the store does not let us ask."""
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError:
        return {}
