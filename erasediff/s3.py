"""The S3 client of publishing, serving and the purge. boto3 finds the address and the credentials (``AWS_ENDPOINT_URL_S3``, …)."""

from __future__ import annotations

from typing import Any

from erasediff.errors import PASSING_STATUS

_PASSING_CODES = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable"})


def s3_client(endpoint_url: str | None = None) -> Any:
    """A new client that shares no connection with an earlier one and gives up within minutes."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)


def code(error: Any) -> str:
    """The S3 error code of a ``ClientError``."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def passes(error: Exception) -> bool:
    """Whether a call that failed with an error of boto3 may succeed later."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import ClientError, HTTPClientError, SSLError

    cause = error.__context__ if isinstance(error, S3UploadFailedError) else error  # it has the refusal as its context
    if isinstance(cause, ClientError):
        return code(cause) in _PASSING_CODES or cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in PASSING_STATUS
    return isinstance(cause, HTTPClientError) and not isinstance(cause, SSLError)
