"""The client for S3 that publishing, serving and the purge share. Address and credentials are boto3's own (``AWS_ENDPOINT_URL_S3``, …)."""

from __future__ import annotations

from typing import Any


def s3_client(endpoint_url: str | None = None) -> Any:
    """A client of its own: no connection, no answer is shared with an earlier one; and one that gives up within minutes."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)


def code(error: Any) -> str:
    """The code of what S3 answered, of a ``ClientError``."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))
