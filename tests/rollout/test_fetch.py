"""The lie: 'the server has what was published', of a server that fetched half of it, or something else."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest

from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.records.base import Pointer
from erasediff.records.core import MANIFEST
from erasediff.records.serving import ServingRules
from erasediff.rollout.store import Exported, store_for
from erasediff.serve.admission import admit
from erasediff.serve.fetch import fetch_model
from erasediff.serve.solver import save_table
from tests.exported import describe
from tests.issuer import issuer_key


@pytest.fixture
def admissible(exported: Exported) -> Exported:
    """With real tables, so that it can be admitted."""
    from erasediff.export.solvers import solver_table
    from erasediff.models.process import squared_cosine

    save_table("ddim-2", solver_table("ddim", 2, squared_cosine(1000)), exported.folder / "solvers.npz")
    describe(exported.folder)
    return Exported.read(exported.folder)


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_what_was_published_to_a_bucket_is_fetched_whole_and_admitted(admissible: Exported, s3: Any) -> None:
    with fetch_model(store_for("s3://models/some/where").publish(admissible), issuer_key().public) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {path.name: path.read_bytes() for path in admissible.folder.iterdir()}
        assert admit(folder, ServingRules(), issuer_key().public).model == admissible.model
    assert not folder.exists()


def test_what_was_changed_in_the_bucket_is_not_admitted(admissible: Exported, s3: Any) -> None:
    uri = store_for("s3://models").publish(admissible)
    s3.put_object(Bucket="models", Key=f"{uri.removeprefix('s3://models/')}/model.onnx", Body=b"another graph")
    with pytest.raises(IntegrityError, match="not the file that was measured"), fetch_model(uri, issuer_key().public) as folder:
        admit(folder, ServingRules(), issuer_key().public)
    assert not folder.exists()


def test_half_a_model_is_no_model_and_is_not_left_behind(admissible: Exported, s3: Any, own_temporary: Path) -> None:
    uri = store_for("s3://models").publish(admissible)
    s3.delete_object(Bucket="models", Key=f"{uri.removeprefix('s3://models/')}/model.onnx")
    with pytest.raises(BadInput, match="holds no exported model"), fetch_model(uri, issuer_key().public):
        pass
    assert not left(own_temporary)


@pytest.mark.parametrize("uri", ["s3://models/nothing", "s3://elsewhere/a", "gs://models/a", "models:/digits@champion", "/nowhere"])
def test_what_is_not_there_ends_in_one_sentence(s3: Any, uri: str) -> None:
    with pytest.raises(BadInput) as refused, fetch_model(uri, issuer_key().public):
        pass
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address"])
def test_a_store_that_does_not_answer_is_named(s3: Any, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unreachable, match="AWS_ENDPOINT_URL_S3"), fetch_model("s3://models/a", issuer_key().public):
        pass


def test_a_manifest_that_names_files_elsewhere_gets_none_of_them(admissible: Exported, s3: Any, tmp_path: Path) -> None:
    """A manifest is from a bucket that others may write to."""
    describe(admissible.folder, onnx=Pointer(uri="../../../etc/model.onnx", sha256="0" * 64))
    for name in (MANIFEST, "model.onnx", "solvers.npz"):
        s3.upload_file(str(admissible.folder / name), "models", f"a/{name}")
    with fetch_model("s3://models/a", issuer_key().public) as folder:
        assert {path.name for path in folder.iterdir()} == {"served.json", "model.onnx", "solvers.npz"}


def test_what_a_killed_server_left_is_deleted_and_what_a_living_one_uses_is_not(admissible: Exported, s3: Any, own_temporary: Path) -> None:
    uri = store_for("s3://models").publish(admissible)
    killed, starting = own_temporary / "erasediff-model-killed", own_temporary / "erasediff-model-starting"
    killed.mkdir()
    (killed / "model.onnx").write_bytes(b"a graph that may have been revoked since")
    starting.mkdir()
    with fetch_model(uri, issuer_key().public) as living, fetch_model(uri, issuer_key().public) as second:
        assert set(left(own_temporary)) == {living, second, starting}
    assert left(own_temporary) == [starting]


def test_a_full_disk_ends_in_one_sentence(admissible: Exported, s3: Any, own_temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = store_for("s3://models").publish(admissible)
    monkeypatch.setattr("boto3.s3.transfer.S3Transfer.download_file", full_disk)
    with pytest.raises(BadInput, match="full"), fetch_model(uri, issuer_key().public):
        pass
    assert not left(own_temporary)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def left(temporary: Path) -> list[Path]:
    return sorted(temporary.iterdir())
