"""A real S3 server (moto) on a free port of this machine, that boto3 may speak to with no credentials of anybody's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch, bucket: str, host: str = "127.0.0.1") -> Iterator[tuple[str, Any]]:
    """Address and client of an empty server with one bucket, that listens at ``host``."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)  # tried again as often, with no pause
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        requests.post(f"{url}/moto-api/reset", timeout=10)  # moto keeps its state per process: an earlier test's bucket would still be there
        client = boto3.client("s3", endpoint_url=url)
        client.create_bucket(Bucket=bucket)
        yield url, client
    finally:
        server.stop()
