"""Small folders and a real S3 server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from erasediff.rollout.seam import Candidate
from erasediff.rollout.store import Exported
from tests.exported import describe


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    """What was exported, with a graph that nobody runs here."""
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"a graph" * 1000)
    (folder / "solvers.npz").write_bytes(b"tables")
    describe(folder)
    return Exported.read(folder)


@pytest.fixture
def candidate(exported: Exported) -> Candidate:
    return Candidate("s3://models/a", exported.model)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a moto server that boto3 finds by its environment, with the bucket `models`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=10)
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client
    finally:
        server.stop()
