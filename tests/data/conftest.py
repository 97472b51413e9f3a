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

from tests.s3 import s3_server


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
    with s3_server(monkeypatch, S3.bucket) as (url, client):
        yield S3(url, client)
