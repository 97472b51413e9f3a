"""Publish an exported model for pods: addressed by content, atomic, and verified by reading back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from erasediff.envelopes import read_manifest
from erasediff.errors import BadInput, IntegrityError, Outage, Unreachable
from erasediff.files import publish_folder, sha256_file
from erasediff.records.core import MANIFEST, ServedModel
from erasediff.retries import retried
from erasediff.s3 import code, passes, s3_client

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Exported:
    """An exported model: its folder and manifest."""

    folder: Path
    model: ServedModel

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """Read the manifest. It is not verified here, where the issuer's public key is not pinned: the servers do that before they are ready.

        Raises:
            BadInput: the folder holds no exported model that passed, or its manifest is not signed.
            IntegrityError: the manifest was changed.
        """
        if not (folder / MANIFEST).is_file():
            raise BadInput(f"{folder} holds no {MANIFEST}: only an exported graph that passed is rolled out.")
        return cls(folder, read_manifest(folder, None))

    @property
    def digests(self) -> dict[str, str]:
        """The digest of every file. The manifest is last: a folder without it is not a model."""
        model = self.model
        named = {Path(pointer.uri).name: pointer.sha256 for pointer in model.files}
        return named | {MANIFEST: sha256_file(self.folder / MANIFEST)}

    @property
    def place(self) -> str:
        """The path below the publishing address: the digests of the graph and the manifest."""
        return f"{self.model.onnx.sha256}/{self.digests[MANIFEST][:16]}"

    def check(self) -> None:
        """Raise IntegrityError if a file is not the measured one."""
        for name, digest in self.digests.items():
            if not (self.folder / name).is_file() or sha256_file(self.folder / name) != digest:
                raise IntegrityError(f"{self.folder / name} is not the file that was measured: export the model again.")


class ModelStore(Protocol):
    """A store of published models."""

    def publish(self, exported: Exported) -> str:
        """Publish a model and return its address; a complete copy is kept."""


def store_for(place: str) -> ModelStore:
    """The store that an address names."""
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadInput(f"{place} lacks a bucket: set ERASEDIFF_ROLL_OUT_PUBLISH_TO to s3://BUCKET/PREFIX.")
        return S3Store(bucket, prefix.strip("/"))
    return FolderStore(Path(place))


@dataclass(frozen=True)
class FolderStore:
    """A folder, such as a mounted claim."""

    root: Path

    def publish(self, exported: Exported) -> str:
        """Copy to a temporary folder and rename it."""
        exported.check()
        target = self.root / exported.place
        if self._whole(target, exported):
            return str(target)

        def fill(folder: Path) -> str:
            for name in exported.digests:
                shutil.copyfile(exported.folder / name, folder / name)
            if not self._whole(folder, exported):
                raise IntegrityError(f"the model in {self.root} does not read back correctly: check the volume and run the same command again.")
            return target.name

        return str(publish_folder(target.parent, fill))

    @staticmethod
    def _whole(folder: Path, exported: Exported) -> bool:
        return all((folder / name).is_file() and sha256_file(folder / name) == digest for name, digest in exported.digests.items())


@dataclass(frozen=True)
class S3Store:
    """An S3 bucket."""

    bucket: str
    prefix: str

    def publish(self, exported: Exported) -> str:
        """Upload all files, the manifest last, and read them back; again while the store is away."""
        exported.check()
        uri = "/".join(part for part in (f"s3://{self.bucket}", self.prefix, exported.place) if part)
        retried(lambda: self._explained(uri, lambda: self._publish(s3_client(), exported, uri)))
        return uri

    def _publish(self, client: Any, exported: Exported, uri: str) -> None:
        digests, base = exported.digests, uri.removeprefix(f"s3://{self.bucket}/")
        if self._read_back(client, base, [MANIFEST]) != {MANIFEST: digests[MANIFEST]} or self._read_back(client, base, digests) != digests:
            for name in digests:
                client.upload_file(str(exported.folder / name), self.bucket, f"{base}/{name}")
            if self._read_back(client, base, digests) != digests:
                raise IntegrityError(f"the model at {uri} does not read back correctly: check the store and run the same command again.")

    def _read_back(self, client: Any, base: str, names: Iterable[str]) -> dict[str, str]:
        """The digests of the stored files; missing files are left out."""
        from botocore.exceptions import ClientError

        found = {}
        for name in names:
            digest = hashlib.sha256()
            try:
                body = client.get_object(Bucket=self.bucket, Key=f"{base}/{name}")["Body"]
            except ClientError as error:
                if code(error) in ("404", "NoSuchKey"):
                    continue
                raise
            for chunk in body.iter_chunks(_CHUNK):
                digest.update(chunk)
            found[name] = digest.hexdigest()
        return found

    @staticmethod
    def _explained(uri: str, action: Callable[[], None]) -> None:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            action()
        except ClientError as error:
            if code(error) == "NoSuchBucket":
                raise BadInput(f"there is no bucket for {uri}: make it, or correct ERASEDIFF_ROLL_OUT_PUBLISH_TO.") from None
            if passes(error):
                raise Outage(f"publishing to {uri} failed, for the store answers {code(error)}: run the same command again later.") from None
            raise Unreachable(f"publishing to {uri} failed ({code(error)}): check the credentials and their permissions.") from None
        except (BotoCoreError, Boto3Error, ValueError) as error:  # ValueError: an endpoint that is no address
            kind = Outage if passes(error) else Unreachable
            raise kind(f"publishing to {uri} failed ({type(error).__name__}): check AWS_ENDPOINT_URL_S3 and the credentials.") from None
