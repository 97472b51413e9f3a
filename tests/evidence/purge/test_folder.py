"""The lies: 'the folder is empty', of a volume that is not mounted; 'only what was meant', of a link that leads elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.evidence.purge.engine import purge_stores
from erasediff.evidence.purge.folder import FolderPlace
from erasediff.evidence.purge.pipeline import pipeline_store
from erasediff.evidence.purge.places import owned_store
from erasediff.evidence.purge.store import Listing, PurgeItem, Store
from erasediff.files import mark_in_use
from erasediff.records.config import PurgeConfig, RunConfig


def test_everything_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in" / "a" / "b", tmp_path / "out"
    inside.mkdir(parents=True)
    (tmp_path / "in" / "empty").mkdir()
    outside.mkdir()
    for path in (inside / "x", outside / "y"):
        path.write_text("x")
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "y")
    place = FolderPlace(tmp_path / "in", tmp_path)
    for item in place.items():
        item.remove()
        item.remove()  # as after a kill
    assert place.items() == ()
    assert (outside / "y").read_text() == "x"
    assert list((tmp_path / "in").iterdir()) == []


def test_a_folder_that_is_not_there_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="mount its volume"):
        FolderPlace(tmp_path / "no" / "such", tmp_path / "no").items()
    assert FolderPlace(tmp_path / "gone", tmp_path).items() == (), "control: a folder that is gone from one that is there"
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="is a link"):
        FolderPlace(tmp_path / "link", tmp_path).items()


def test_a_store_that_only_says_that_it_deleted_is_not_believed() -> None:
    store = Store("workdir", lambda: Listing((PurgeItem("files", lambda: None),)), "listed anew")
    done = purge_stores([store, Store("keys", lambda: Listing(), "looked anew", ("workdir",))], (), lambda _: None)
    assert [entry.store for entry in done.unfinished] == ["workdir", "keys"]
    assert "still exist" in done.unfinished[0].reason
    assert done.lines == ()


@pytest.mark.parametrize("place", ["relative/folder", "/", "/top", "s3://bucket", "s3://bucket/", "gs://bucket/prefix", "/a/../../etc"])
def test_a_place_that_cannot_be_meant_is_refused_when_the_config_is_read(place: str) -> None:
    with pytest.raises(BadInput, match="places"):
        RunConfig.parse({"purge": {"places": [place]}}, "the config")


def test_an_owners_place_goes_and_one_that_holds_more_does_not(tmp_path: Path) -> None:
    workdir, own, dataset = tmp_path / "work", tmp_path / "requests" / "one", tmp_path / "data"
    for folder in (workdir / "models", own, dataset):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    needed = [str(workdir), str(dataset), "s3://bucket/sets"]
    for place in (str(tmp_path), str(dataset), str(workdir / "models"), "s3://bucket/sets"):
        with pytest.raises(BadInput, match=r"place 1 of purge\.places holds other data") as refused:
            owned_store([place], workdir, needed).look()
        assert place not in str(refused.value)
    store = owned_store([str(own)], workdir, needed)
    assert purge_stores([store], (), lambda _: None).unfinished == ()
    assert not list(own.iterdir())
    assert (dataset / "file").is_file()


def test_places_are_neither_logged_nor_shown() -> None:
    config = RunConfig(purge=PurgeConfig(places=("/requests/jane-doe",)))
    assert "jane" not in str(config.shown())
    assert config.digest() != RunConfig().digest(), "control: they are part of what was fixed"


def test_a_folder_of_a_pipeline_that_runs_stays_and_one_of_a_killed_run_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for folder in (tmp_path / "tmp" / "erasediff-kfp-dead", tmp_path / "work" / ".launch-dead", tmp_path / "work" / ".launch-alive"):
        folder.mkdir(parents=True)
        (folder / "report").write_text("x")
    store = pipeline_store(Workdir.open(tmp_path / "work"), ())
    with mark_in_use(tmp_path / "work" / ".launch-alive"):
        done = purge_stores([store], (), lambda _: None)
        assert {line.action: line.count for line in done.lines} == {"deleted": 2, "kept": 1}
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".launch-alive"]
    assert not list((tmp_path / "tmp").iterdir())


def test_a_damaged_grid_is_not_taken_for_one_without_the_class(tmp_path: Path) -> None:
    from erasediff.evidence.purge.grids import _read

    (tmp_path / "samples.npz").write_bytes(b"no archive")
    with pytest.raises(IntegrityError, match="cannot be read"):
        _read(tmp_path / "samples.npz")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(IntegrityError, match="does not name its labels"):
        _read(tmp_path / "other.npz")
