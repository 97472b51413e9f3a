"""The lie: 'the run is deleted', of rows that are only hidden, and of bytes that SQLite leaves in its file."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from erasediff.errors import BadInput, Unreachable
from erasediff.evidence.purge.database import MlflowDatabase
from erasediff.evidence.purge.registry import database_uri, registry_store
from erasediff.records.purging import PlannedRun, PlannedVersion, PurgePlan
from erasediff.records.settings import ServiceSettings
from erasediff.tracking import Tracking

CANARY = "canary-of-the-database-0123456789"


@pytest.fixture
def tracking(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """MLflow on SQLite."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return Tracking(tmp_path)


def filled(tracking: Tracking, folder: Path) -> tuple[str, str, str]:
    """Two runs and two versions, of which the first hold the canary in everything that MLflow keeps of them."""
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource
    from mlflow.entities import DatasetInput

    (folder / "artifact").mkdir()
    (folder / "artifact" / "weights").write_text("w")
    runs = [tracking.start_run(f"a run of {CANARY}", {"tag": CANARY * 9}), tracking.start_run("another", {})]
    tracking.log_params(runs[0], {"param": CANARY})
    tracking.log_curves(runs[0], {CANARY: [float(n) for n in range(300)]})
    dataset = MetaDataset(LocalArtifactDatasetSource(str(folder)), name="d")._to_mlflow_entity()
    tracking.client.log_inputs(runs[0], [DatasetInput(dataset)])
    sources = [tracking.log_artifacts(run, folder / "artifact", "model") for run in runs]
    first = tracking.register("m", sources[0], runs[0], {"erasediff.model": CANARY})
    tracking.register("m", sources[1], runs[1], {"a_sha256": "2"})
    tracking.set_alias("m", "old", first)
    return runs[0], runs[1], first


def plan_of(run: str, version: str) -> PurgePlan:
    return PurgePlan(runs=(PlannedRun(id=run, artifacts="/x"),), versions=(PlannedVersion(name="m", number=int(version)),))


def test_every_row_goes_and_no_byte_of_it_stays_in_the_file(tracking: Tracking, tmp_path: Path) -> None:
    run, other, version = filled(tracking, tmp_path)
    file = tmp_path / "mlflow.db"
    assert CANARY.encode() in file.read_bytes(), "control"
    store = registry_store(plan_of(run, version), "m", "delete", tracking, ServiceSettings.load())
    for item in store.look().items:
        item.remove()
    assert store.look().items == ()
    assert CANARY.encode() not in file.read_bytes()
    assert tracking.find_run(run) is None
    assert [str(v.version) for v in tracking.versions("m")] == ["2"]
    assert tracking.alias("m", "old") is None
    assert tracking.find_run(other) is not None
    assert tracking.register("m", "s3://elsewhere", other, {"a_sha256": "3"}) == "3", "no number is given twice"


def test_control_mlflows_own_deletion_leaves_rows_and_bytes(tracking: Tracking, tmp_path: Path) -> None:
    run, _, version = filled(tracking, tmp_path)
    tracking.client.delete_run(run)
    tracking.client.delete_model_version("m", version)
    database = MlflowDatabase(tracking.uri)
    assert database.rows_of_run(run) > 300
    assert database.rows_of_version("m", int(version)) > 1
    assert CANARY.encode() in (tmp_path / "mlflow.db").read_bytes()
    store = registry_store(plan_of(run, version), "m", "delete", tracking, ServiceSettings.load())
    assert sorted(item.what for item in store.look().items) == ["runs", "soft-deleted versions"]
    for item in store.look().items:
        item.remove()
    assert CANARY.encode() not in (tmp_path / "mlflow.db").read_bytes()


def test_control_the_rows_that_gc_deletes_are_not_all(tracking: Tracking, tmp_path: Path) -> None:
    """So the deletion is not left to it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    run, _, _ = filled(tracking, tmp_path)
    SqlAlchemyStore(tracking.uri, str(tmp_path / "artifacts"))._hard_delete_run(run)
    assert MlflowDatabase(tracking.uri).rows_of_run(run) > 0, "the row of its dataset"


def test_the_highest_version_is_tagged_and_never_deleted(tracking: Tracking, tmp_path: Path) -> None:
    run, other, _ = filled(tracking, tmp_path)
    store = registry_store(PurgePlan(versions=(PlannedVersion(name="m", number=2),)), "m", "delete", tracking, ServiceSettings.load())
    (item,) = store.look().items
    assert item.action == "revoked"
    item.remove()
    assert store.look().items == ()
    assert "erasediff.revoked" in tracking.resolve("models:/m/2").tags
    assert run != other


def test_a_server_without_its_database_is_unfinished_not_purged() -> None:
    with pytest.raises(BadInput, match="only hides deleted rows"):
        database_uri("http://127.0.0.1:5000", ServiceSettings.load())


def test_databases_that_cannot_be_asked_get_a_sentence_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be opened"):
        MlflowDatabase("nonsense")
    with pytest.raises(BadInput, match="is not MLflow's"):
        MlflowDatabase(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(Unreachable, match="does not answer") as refused:
        MlflowDatabase("postgresql+psycopg://user:secret@127.0.0.1:9/mlflow")
    assert "secret" not in str(refused.value)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of this test's own."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("needs PostgreSQL: put initdb and pg_ctl on the PATH")
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path("/tmp") / f"erasediff-postgres-{os.getpid()}"  # sockets have short paths, and the server runs as another user
    folder.mkdir()
    shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    other = ["setpriv", f"--reuid={user}", "--clear-groups"] if os.geteuid() == 0 else []

    def run(*command: str) -> None:
        subprocess.run([*other, *command], check=True, capture_output=True, cwd=folder, timeout=120)

    try:
        run("initdb", "-D", f"{folder}/data", "-U", "mlflow", "-A", "trust", "--no-sync")
        run("pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", f"-p {port} -k {folder} -c fsync=off", "start")
        run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow")
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        subprocess.run([*other, "pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop"], capture_output=True, cwd="/", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_same_on_postgresql_where_keys_refer_to_keys(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children have to go before their parents there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    started = time.monotonic()
    tracking = Tracking(tmp_path)
    run, other, version = filled(tracking, tmp_path)
    store = registry_store(plan_of(run, version), "m", "delete", tracking, ServiceSettings.load())
    for item in store.look().items:
        item.remove()
    assert store.look().items == ()
    database: Callable[[str], int] = MlflowDatabase(postgres).rows_of_run
    assert (database(run), database(other) > 0) == (0, True)
    assert time.monotonic() - started < 300
