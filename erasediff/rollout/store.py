"""Publish an exported model where pods can read it: named by its content, whole or not at all, and read back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.files import publish_folder, sha256_file
from erasediff.records.nouns import MANIFEST, ServedModel
from erasediff.s3 import code, s3_client

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Exported:
    """A folder that the export step wrote, as its manifest describes it."""

    folder: Path
    model: ServedModel

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """Read the manifest.

        Raises:
            BadInput: the folder holds no exported model that passed.
        """
        if not (folder / MANIFEST).is_file():
            raise BadInput(f"{folder} holds no {MANIFEST}: only an exported graph that passed is rolled out.")
        return cls(folder, ServedModel.read(folder / MANIFEST))

    @property
    def digests(self) -> dict[str, str]:
        """The digest of every file, the manifest last: a folder without it is no model."""
        model = self.model
        named = {Path(pointer.uri).name: pointer.sha256 for pointer in (model.onnx, model.solvers)}
        return named | {MANIFEST: sha256_file(self.folder / MANIFEST)}

    @property
    def place(self) -> str:
        """Where it goes below the place to publish to: by the graph, then by what is said of it."""
        return f"{self.model.onnx.sha256}/{self.digests[MANIFEST][:16]}"

    def check(self) -> None:
        """Raise IntegrityError where a file is not the one that was measured."""
        for name, digest in self.digests.items():
            if not (self.folder / name).is_file() or sha256_file(self.folder / name) != digest:
                raise IntegrityError(f"{self.folder / name} is not the file that was measured: export the model again.")


class ModelStore(Protocol):
    """A place to publish to."""

    def publish(self, exported: Exported) -> str:
        """Publish a model and return its address; one that is already there whole is left alone."""


def store_for(place: str) -> ModelStore:
    """The store that an address names."""
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadInput(f"{place} names no bucket: set ERASEDIFF_ROLL_OUT_PUBLISH_TO to s3://BUCKET/PREFIX.")
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
                raise IntegrityError(
                    f"what was written to {self.root} does not read back as it was: check the volume and run the same command again."
                )
            return target.name

        return str(publish_folder(target.parent, fill))

    @staticmethod
    def _whole(folder: Path, exported: Exported) -> bool:
        return all((folder / name).is_file() and sha256_file(folder / name) == digest for name, digest in exported.digests.items())


@dataclass(frozen=True)
class S3Store:
    """A bucket, by :func:`s3_client`."""

    bucket: str
    prefix: str

    def publish(self, exported: Exported) -> str:
        """Upload file by file, the manifest last, and read all of it back."""
        exported.check()
        uri = "/".join(part for part in (f"s3://{self.bucket}", self.prefix, exported.place) if part)
        self._explained(uri, lambda: self._publish(s3_client(), exported, uri))
        return uri

    def _publish(self, client: Any, exported: Exported, uri: str) -> None:
        digests, base = exported.digests, uri.removeprefix(f"s3://{self.bucket}/")
        if self._read_back(client, base, [MANIFEST]) != {MANIFEST: digests[MANIFEST]} or self._read_back(client, base, digests) != digests:
            for name in digests:
                client.upload_file(str(exported.folder / name), self.bucket, f"{base}/{name}")
            if self._read_back(client, base, digests) != digests:
                raise IntegrityError(f"what was published to {uri} does not read back as it was: check the store and run the same command again.")

    def _read_back(self, client: Any, base: str, names: Iterable[str]) -> dict[str, str]:
        """The digests of what lies there; a file that is missing has none."""
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
            raise Unreachable(f"nothing can be published to {uri} ({code(error)}): check the credentials and what they allow.") from None
        except (BotoCoreError, Boto3Error, ValueError) as error:  # ValueError: an endpoint that is no address
            raise Unreachable(f"nothing can be published to {uri} ({type(error).__name__}): check AWS_ENDPOINT_URL_S3 and the credentials.") from None
