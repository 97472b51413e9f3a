"""Fetch an exported model from a folder or S3."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from erasediff.envelopes import PublicKey, read_manifest
from erasediff.errors import BadInput, Unreachable
from erasediff.files import explain_disk_errors, temporary_folder
from erasediff.records.core import MANIFEST
from erasediff.s3 import code, s3_client

MAX_BYTES = 16 << 30
_PREFIX = "erasediff-model-"


@contextlib.contextmanager
def fetch_model(model: str, key: PublicKey | None) -> Iterator[Path]:
    """Yield the folder of a model at a local path or ``s3://BUCKET/PREFIX``; a download is deleted after the block.

    Args:
        model: the path or the address.
        key: the key of its manifest, which says what is downloaded; without one the manifest is not verified.

    Raises:
        BadInput: there is no such folder or object, or another kind of address; the manifest is not signed by the key; or the disk is full.
        Unreachable: the store does not answer or refuses.
    """
    if model.startswith("s3://"):
        # Folders of killed servers are removed first, or each restart of a pod would add a model to its disk.
        with temporary_folder(Path(tempfile.gettempdir()), _PREFIX) as folder:
            _from_s3(model, folder, key)
            yield folder
        return
    if "://" in model or model.startswith("models:"):
        raise BadInput(f"--model {model} is not supported: give a folder or s3://BUCKET/PREFIX, where `erasediff roll-out` publishes.")
    if not Path(model).is_dir():
        raise BadInput(f"--model {model} is not a folder: give the folder `onnx` of a run that passed, or s3://BUCKET/PREFIX.")
    yield Path(model)


def _from_s3(uri: str, folder: Path, key: PublicKey | None) -> None:
    """Fetch only the files that the manifest names."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        client = s3_client()
        _object(client, bucket, f"{prefix.rstrip('/')}/{MANIFEST}", folder / MANIFEST)
        model = read_manifest(folder, key)
        for pointer in model.files:
            name = Path(pointer.uri).name
            _object(client, bucket, f"{prefix.rstrip('/')}/{name}", folder / name)
    except ClientError as error:
        if code(error) in ("404", "NoSuchKey", "NoSuchBucket"):
            raise BadInput(f"{uri} holds no exported model: publish one with `erasediff roll-out`.") from None
        raise Unreachable(f"{uri} cannot be read ({code(error)}): check the credentials.") from None
    except (BotoCoreError, ValueError) as error:  # ValueError: the endpoint is not an address
        raise Unreachable(f"{uri} cannot be read ({type(error).__name__}): check AWS_ENDPOINT_URL_S3 and the credentials.") from None


def _object(client: Any, bucket: str, key: str, path: Path) -> None:
    size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
    if size > MAX_BYTES:
        raise BadInput(f"s3://{bucket}/{key} has {size} bytes, more than the {MAX_BYTES} allowed: is it the right model?")
    with explain_disk_errors(path):
        client.download_file(bucket, key, str(path))
