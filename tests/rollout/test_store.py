"""The lie: 'it was published', of half a model, or of other bytes than were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.records.core import MANIFEST
from erasediff.records.serving import ServingRules
from erasediff.rollout.store import Exported, FolderStore, S3Store, store_for
from erasediff.serve.admission import admit
from tests.exported import describe
from tests.issuer import issuer_key


def test_a_folder_is_published_whole_and_only_once(exported: Exported, tmp_path: Path) -> None:
    uri = FolderStore(tmp_path / "claim").publish(exported)
    assert uri == str(tmp_path / "claim" / exported.place)
    assert {p.name for p in Path(uri).iterdir()} == {"model.onnx", "solvers.npz", MANIFEST}
    before = {p: p.stat().st_ino for p in Path(uri).iterdir()}
    assert FolderStore(tmp_path / "claim").publish(exported) == uri
    assert {p: p.stat().st_ino for p in Path(uri).iterdir()} == before
    assert [p.name for p in Path(uri).parent.iterdir()] == [Path(uri).name], "nothing half-written is left"


def test_control_a_published_copy_that_was_damaged_is_written_again(exported: Exported, tmp_path: Path) -> None:
    uri = Path(FolderStore(tmp_path / "claim").publish(exported))
    (uri / "model.onnx").write_bytes(b"another graph")
    FolderStore(tmp_path / "claim").publish(exported)
    assert (uri / "model.onnx").read_bytes() == (exported.folder / "model.onnx").read_bytes()


def test_another_verdict_about_the_same_graph_lies_beside_it(exported: Exported, tmp_path: Path) -> None:
    first = FolderStore(tmp_path / "claim").publish(exported)
    describe(exported.folder, epoch=2)
    second = FolderStore(tmp_path / "claim").publish(Exported.read(exported.folder))
    assert first != second
    assert Path(first).parent == Path(second).parent


@pytest.mark.parametrize("name", ["model.onnx", "solvers.npz"])
def test_what_is_not_what_was_measured_is_not_published(exported: Exported, tmp_path: Path, name: str) -> None:
    (exported.folder / name).write_bytes(b"x")
    with pytest.raises(IntegrityError, match="not the file that was measured"):
        FolderStore(tmp_path / "claim").publish(exported)
    assert not (tmp_path / "claim").exists()


def test_a_folder_without_a_manifest_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="only an exported graph that passed"):
        Exported.read(tmp_path)


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="models").get("Contents", [])]


def test_a_bucket_gets_the_manifest_last_and_a_second_time_nothing(exported: Exported, s3: Any) -> None:
    uri = store_for("s3://models/erased/").publish(exported)
    assert uri == f"s3://models/erased/{exported.place}"
    found = {entry["Key"].rpartition("/")[2]: entry["LastModified"] for entry in s3.list_objects_v2(Bucket="models")["Contents"]}
    assert set(found) == {"model.onnx", "solvers.npz", MANIFEST}
    store_for("s3://models/erased").publish(exported)
    again = {entry["Key"].rpartition("/")[2]: entry["LastModified"] for entry in s3.list_objects_v2(Bucket="models")["Contents"]}
    assert again == found


def test_an_upload_that_was_killed_has_no_manifest_and_is_completed(exported: Exported, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasediff.rollout import store as module

    real = module.s3_client

    class Dying:
        """A client whose second upload never ends."""

        def __init__(self, client: Any) -> None:
            self.client, self.left = client, 1

        def upload_file(self, *arguments: Any) -> None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.client.upload_file(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.client, name)

    with monkeypatch.context() as patch:
        patch.setattr(module, "s3_client", lambda: Dying(real()))
        with pytest.raises(KeyboardInterrupt):
            S3Store("models", "").publish(exported)
    assert not any(key.endswith(MANIFEST) for key in keys(s3))
    S3Store("models", "").publish(exported)
    assert any(key.endswith(MANIFEST) for key in keys(s3))


def test_bytes_that_do_not_read_back_are_an_error(exported: Exported, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Store, "_read_back", lambda self, client, base, names: {})
    with pytest.raises(IntegrityError, match="does not read back"):
        S3Store("models", "").publish(exported)


@pytest.mark.parametrize(
    ("place", "change", "kind", "sentence"),
    [
        ("s3://nothing/x", {}, BadInput, "there is no bucket"),
        ("s3:///x", {}, BadInput, "lacks a bucket"),
        ("s3://models/x", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, Unreachable, "AWS_ENDPOINT_URL_S3"),
        ("s3://models/x", {"AWS_ENDPOINT_URL_S3": "no address"}, Unreachable, "AWS_ENDPOINT_URL_S3"),
    ],
)
def test_a_store_that_cannot_be_used_ends_in_one_sentence(
    exported: Exported, s3: Any, monkeypatch: pytest.MonkeyPatch, place: str, change: dict[str, str], kind: type[Exception], sentence: str
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(kind, match=sentence) as refused:
        store_for(place).publish(exported)
    assert "\n" not in str(refused.value)
    assert "test-secret" not in str(refused.value)


def test_what_was_published_is_what_a_server_admits(tmp_path: Path, exported: Exported) -> None:
    from erasediff.export.solvers import solver_table
    from erasediff.models.process import squared_cosine
    from erasediff.serve.solver import save_table

    save_table("ddim-2", solver_table("ddim", 2, squared_cosine(1000)), exported.folder / "solvers.npz")
    describe(exported.folder)
    whole = Exported.read(exported.folder)
    assert admit(Path(FolderStore(tmp_path / "claim").publish(whole)), ServingRules(), issuer_key().public).model == whole.model
