"""A short run of the benchmark of a million pictures, on a few."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import data, tables


@pytest.mark.thorough
@pytest.mark.parametrize("kind", data.FORMATS)
def test_every_step_has_a_row_and_finds_the_copies(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`steps` itself fails where another number of copies is found."""
    monkeypatch.setattr(data, "SHARD", 2_000)
    monkeypatch.setattr(data, "COPIES", 20)
    (tmp_path / kind).mkdir()
    for number in range(2):
        data.write_shard(tmp_path / kind, kind, number)
    rows = data.steps(tmp_path, kind, 4_000)
    assert [row["step"] for row in rows] == ["read", "digest", "version", "split", "compare"]
    assert all(row["images_per_s"] > 0 and row["ratio_to_disk"] > 0 and row["peak_rss_mb"] > 0 for row in rows)
    stamped = [row | {"commit": "c", "cores": 2, "date": "d"} for row in rows]
    assert f"| {kind} | compare | 4,000 |" in tables.data_table(stamped)
