"""The S3 client of publishing, serving and the purge. boto3 finds the address and the credentials (``AWS_ENDPOINT_URL_S3``, …)."""

from __future__ import annotations

from typing import Any


def s3_client(endpoint_url: str | None = None) -> Any:
    """A new client that shares no connection with an earlier one and gives up within minutes."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)


def code(error: Any) -> str:
    """The S3 error code of a ``ClientError``."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))
