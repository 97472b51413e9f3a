"""The lie: 'MLflow says that it is deleted', of a server that hides rows and hands artifacts on from a place that nobody looked at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from erasediff.errors import PurgeUnfinished
from erasediff.evidence.purge.artifacts import real_address
from erasediff.records.purging import PurgeRecord
from erasediff.records.settings import ServiceSettings
from erasediff.steps.purge import purge
from tests.evidence.purge.world import World, holders
from tests.mlflow_server import free_port, mlflow_server
from tests.s3 import s3_server

BUCKET = "forget-sets"


@pytest.fixture
def server(tmp_path: Path, migrated: Path) -> Iterator[tuple[str, Path]]:
    """A real server over HTTP that hands artifacts on; its address, and the folder of its database and artifacts."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    with mlflow_server(folder) as address:
        yield address, folder


def test_with_a_server_and_s3_the_canary_is_found_nowhere(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And until the purge is told where the server keeps things, it says that it is not finished."""
    address, folder = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with s3_server(monkeypatch, BUCKET) as (url, client):
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        monkeypatch.setenv("ERASEDIFF_DVC_REMOTE", f"s3://{BUCKET}/erasures")
        monkeypatch.setenv("ERASEDIFF_DVC_REMOTE_ENDPOINT_URL", url)
        world = World(tmp_path)
        run = world.promoted()
        assert holders(world.canary, folder), "control"
        assert any(world.canary in body for body in bodies(url)), "control"
        with pytest.raises(PurgeUnfinished):
            purge(run)
        unfinished = {entry.store: entry.reason for entry in run.need(PurgeRecord).unfinished}
        assert "ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION" in unfinished["mlflow artifacts"]
        assert unfinished["mlflow registry"] == "it is not purged before the store 'mlflow artifacts'."
        assert "keys" in unfinished
        monkeypatch.setenv("ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION", str(folder / "artifacts"))
        with pytest.raises(PurgeUnfinished, match="ERASEDIFF_MLFLOW_BACKEND_STORE_URI"):
            purge(run)
        monkeypatch.setenv("ERASEDIFF_MLFLOW_BACKEND_STORE_URI", f"sqlite:///{folder}/mlflow.db")
        assert purge(run).complete
        assert holders(world.canary, world.workdir.root, folder) == []
        assert bodies(url) == []
    champion = world.tracking.resolve("models:/numbers@champion")
    assert (world.tracking.download(champion.source, tmp_path / "fetched") / "unet" / "weights").read_bytes() == b"erased winner"
    assert run.plan().mlflow_run_id == champion.run_id


def test_a_server_that_is_down_leaves_the_purge_unfinished_and_nothing_deleted(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    world = World(tmp_path)
    run = world.promoted()
    before = holders(world.canary, world.workdir.root, folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(PurgeUnfinished, match="does not answer"):
        purge(run)
    assert [entry.store for entry in run.need(PurgeRecord).unfinished] == ["mlflow registry"]
    assert holders(world.canary, world.workdir.root, folder) == before


def bodies(url: str) -> list[bytes]:
    """Every version of every object, through a client of this test's own."""
    client = boto3.session.Session().client("s3", endpoint_url=url)
    listed = client.list_object_versions(Bucket=BUCKET).get("Versions", ())
    return [client.get_object(Bucket=BUCKET, Key=e["Key"], VersionId=e["VersionId"])["Body"].read() for e in listed]


def test_the_address_of_an_artifact_behind_a_server() -> None:
    settings = ServiceSettings(mlflow_artifacts_destination="s3://bucket/mlflow/")
    assert real_address("mlflow-artifacts:/1/run/artifacts", settings) == "s3://bucket/mlflow/1/run/artifacts"
    assert real_address("http://host/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts", settings) == "s3://bucket/mlflow/1/run/artifacts"
    assert real_address("file:///a/run/artifacts/", settings) == "file:///a/run/artifacts"
