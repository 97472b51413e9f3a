"""Shared stand-ins: a small dataset on disk and a real S3 server in this process."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Six 8x8 grey PNGs of two classes with their labels.csv."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    write_labels(folder, [["file", "label"], *([f"{n}.png", "cat" if n % 2 else "dog"] for n in range(6))])
    return folder


def write_labels(folder: Path, rows: list[list[str]]) -> None:
    """Write labels.csv."""
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)


@pytest.fixture
def labels_writer() -> Callable[[Path, list[list[str]]], None]:
    """The writer of labels.csv, for tests that break it."""
    return write_labels


@dataclass
class S3:
    """A running S3 server with one bucket."""

    url: str
    client: Any
    bucket: str = "forget-sets"

    def keys(self) -> list[str]:
        """Every key in the bucket."""
        return sorted(entry["Key"] for entry in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", []))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A moto server on a free port."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client("s3", endpoint_url=url)
        # moto keeps its state per process, so that an earlier test's bucket would still be there.
        import urllib.request

        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=10).close()
        client.create_bucket(Bucket=S3.bucket)
        yield S3(url, client)
    finally:
        server.stop()
