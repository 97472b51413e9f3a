"""A world before its purge, and a database of MLflow that is migrated once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evidence.purge.world import World


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database after its migrations, which take ten seconds."""
    from erasediff.tracking import Tracking

    folder = tmp_path_factory.mktemp("migrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracking(folder).alias("nothing", "champion")
    return folder / "mlflow.db"


@pytest.fixture
def build(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Build a world with MLflow on SQLite and the DVC remote in a folder, both in the workdir."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "work").mkdir()
    shutil.copy(migrated, tmp_path / "work" / "mlflow.db")

    def made(**changes: object) -> World:
        return World(tmp_path, **changes)  # type: ignore[arg-type]

    return made


@pytest.fixture
def world(build: Callable[..., World]) -> World:
    """The plain one."""
    return build()
