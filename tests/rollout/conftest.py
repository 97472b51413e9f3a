"""Small folders and a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erasediff.rollout.backend import Candidate
from erasediff.rollout.store import Exported
from tests.exported import describe
from tests.s3 import s3_server


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
    with s3_server(monkeypatch, "models") as (url, client):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        yield client
