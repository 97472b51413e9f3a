"""The lie: 'the forget set is in the remote' while it is not, and 'no copy is left' while one is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasediff.data import versioning
from erasediff.data.shards import pack
from erasediff.data.versioning import ForgetStore
from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.files import sha256_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A packed forget set of two shards."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    pack(images, np.zeros(30, dtype=np.int64), np.arange(30), tmp_path / "packed", bytes(32), shard_size=20)
    return tmp_path / "packed"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where the store may work."""
    return tmp_path / "scratch"


def _objects(remote: Path) -> list[Path]:
    return sorted(path for path in remote.rglob("*") if path.is_file())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("DVC", "AWS"))}


def test_local_round_trip_leaves_no_copy(tmp_path: Path, folder: Path, scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Identical bytes come back; source and environment are untouched, the scratch is empty, nothing is printed."""
    before, modes, environment = sha256_folder(folder), [p.stat().st_mode for p in sorted(folder.iterdir())], _environment()
    store = ForgetStore(str(tmp_path / "remote"))
    version = store.publish(folder, scratch)
    assert len(_objects(tmp_path / "remote")) == 4
    store.fetch(version, tmp_path / "back", scratch)
    assert sha256_folder(tmp_path / "back") == before == sha256_folder(folder)
    assert [p.stat().st_mode for p in sorted(folder.iterdir())] == modes
    assert list(scratch.iterdir()) == []
    assert _environment() == environment
    assert capfd.readouterr() == ("", "")


def test_the_version_is_the_content(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """One set has one version in any remote at any time, and (the control) another set has another."""
    store = ForgetStore(str(tmp_path / "remote"))
    first = store.publish(folder, scratch)
    objects = _objects(tmp_path / "remote")
    shutil.copytree(folder, tmp_path / "again")
    assert store.publish(tmp_path / "again", scratch) == first
    assert _objects(tmp_path / "remote") == objects
    (tmp_path / "again" / "shard-00000.npz").write_bytes(b"other")
    assert store.publish(tmp_path / "again", scratch) != first


def test_fetching_replaces_what_lies_there(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """Running a step twice leaves what running it once leaves, with no stale file between the shards."""
    store = ForgetStore(str(tmp_path / "remote"))
    version = store.publish(folder, scratch)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "stale.npz").write_bytes(b"x")
    store.fetch(version, tmp_path / "back", scratch)
    store.fetch(version, tmp_path / "back", scratch)
    assert sha256_folder(tmp_path / "back") == sha256_folder(folder)


def test_a_push_that_did_nothing_is_not_believed(tmp_path: Path, folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof asks the remote: a push that reports success and sends nothing fails, and leaves no copy."""
    from dvc.repo import Repo

    monkeypatch.setattr(Repo, "push", lambda *_, **__: 3)
    with pytest.raises(BadInput, match="is not in the DVC remote"):
        ForgetStore(str(tmp_path / "remote")).publish(folder, scratch)
    assert list(scratch.iterdir()) == []


def test_a_push_that_lost_a_file_is_not_believed(tmp_path: Path, folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof asks for every file, not for the list of files only."""
    from dvc.repo import Repo

    push = Repo.push

    def lossy(repo: Any, **options: Any) -> None:
        push(repo, **options)
        max(_objects(tmp_path / "remote"), key=lambda path: path.stat().st_size).unlink()

    monkeypatch.setattr(Repo, "push", lossy)
    with pytest.raises(IntegrityError, match=r"does not hold shard-00000\.npz"):
        ForgetStore(str(tmp_path / "remote")).publish(folder, scratch)


def test_a_truncated_object_in_the_remote_is_found(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """DVC skips objects whose name is there already, whole or not; the proof does not."""
    store = ForgetStore(str(tmp_path / "remote"))
    store.publish(folder, scratch)
    largest = max(_objects(tmp_path / "remote"), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="a part of"):
        store.publish(folder, scratch)


def test_changed_bytes_in_the_remote_are_not_handed_over(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """DVC does not hash what it downloads; the adapter does."""
    store = ForgetStore(str(tmp_path / "remote"))
    version = store.publish(folder, scratch)
    largest = max(_objects(tmp_path / "remote"), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="other bytes"):
        store.fetch(version, tmp_path / "back", scratch)
    assert not (tmp_path / "back").exists()
    assert list(scratch.iterdir()) == []


def test_a_version_with_a_part_missing_is_not_handed_over(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """A half-purged forget set is not used as a whole one."""
    store = ForgetStore(str(tmp_path / "remote"))
    version = store.publish(folder, scratch)
    max(_objects(tmp_path / "remote"), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(BadInput, match="does not hold all files"):
        store.fetch(version, tmp_path / "back", scratch)
    assert not (tmp_path / "back").exists()


def test_a_listing_cannot_write_outside_the_target(tmp_path: Path, scratch: Path) -> None:
    """Whoever can write to the remote cannot write to this machine."""
    listing = json.dumps([{"md5": hashlib.md5(b"x").hexdigest(), "relpath": "../../evil"}]).encode()
    version = hashlib.md5(listing).hexdigest()
    path = tmp_path / "remote" / "files" / "md5" / version[:2] / f"{version[2:]}.dir"
    path.parent.mkdir(parents=True)
    path.write_bytes(listing)
    with pytest.raises(IntegrityError, match="outside its folder"):
        ForgetStore(str(tmp_path / "remote")).fetch(f"{version}.dir", tmp_path / "back", scratch)


def test_a_killed_runs_copy_is_removed_by_the_next(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """Plaintext that a kill left behind does not stay for ever."""
    left = scratch / ".forget-store" / "forget"
    left.mkdir(parents=True)
    (left / "plaintext.npz").write_bytes(b"x")
    ForgetStore(str(tmp_path / "remote")).publish(folder, scratch)
    assert list(scratch.iterdir()) == []


def test_two_runs_do_not_share_a_scratch(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """A run never removes the workspace of a living one."""
    from erasediff.data.workspace import throwaway_workspace

    store = ForgetStore(str(tmp_path / "remote"))
    with throwaway_workspace(scratch) as workspace:
        with pytest.raises(BadInput, match="in use"):
            store.publish(folder, scratch)
        assert workspace.is_dir()
    store.publish(folder, scratch)


def test_a_local_remote_is_not_made_out_of_a_typing_error(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """A misspelt folder is not filled silently; neither is a file taken for one."""
    with pytest.raises(BadInput, match="cannot be made"):
        ForgetStore(str(tmp_path / "no" / "such" / "remote")).publish(folder, scratch)
    assert not (tmp_path / "no").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match="not a folder"):
        ForgetStore(str(tmp_path / "file")).publish(folder, scratch)
    with pytest.raises(BadInput, match="does not exist"):
        ForgetStore(str(tmp_path / "no")).fetch("0" * 32 + ".dir", tmp_path / "back", scratch)


def test_bad_folders_and_versions_get_a_sentence(tmp_path: Path, folder: Path, scratch: Path) -> None:
    """No version is given to nothing, to links, or to a name that is no version."""
    store = ForgetStore(str(tmp_path / "remote"))
    with pytest.raises(BadInput, match="does not exist"):
        store.publish(tmp_path / "absent", scratch)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no files"):
        store.publish(tmp_path / "empty", scratch)
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="link"):
        store.publish(folder, scratch)
    with pytest.raises(BadInput, match="not a version"):
        store.fetch("../../etc", tmp_path / "back", scratch)


def test_s3_round_trip(tmp_path: Path, folder: Path, scratch: Path, s3: Any) -> None:
    """The objects are under the remote's prefix; identical bytes come back; no copy is left; again is the same."""
    store = ForgetStore(f"s3://{s3.bucket}/request-1", s3.url)
    version = store.publish(folder, scratch)
    keys = s3.keys()
    assert f"request-1/files/md5/{version[:2]}/{version[2:]}" in keys
    assert len(keys) == 4
    assert all(key.startswith("request-1/files/md5/") for key in keys)
    assert store.publish(folder, scratch) == version
    assert s3.keys() == keys
    store.fetch(version, tmp_path / "back", scratch)
    assert sha256_folder(tmp_path / "back") == sha256_folder(folder)
    assert list(scratch.iterdir()) == []
    s3.client.delete_object(Bucket=s3.bucket, Key=f"request-1/files/md5/{version[:2]}/{version[2:]}")
    with pytest.raises(BadInput, match=f"version {version} is not in the DVC remote"):
        store.fetch(version, tmp_path / "again", scratch)


def test_a_missing_bucket_is_named_and_not_made(folder: Path, scratch: Path, s3: Any) -> None:
    """A misspelt bucket does not become a public one."""
    with pytest.raises(BadInput, match="create the bucket no-such-bucket"):
        ForgetStore("s3://no-such-bucket/x", s3.url).publish(folder, scratch)
    assert [bucket["Name"] for bucket in s3.client.list_buckets()["Buckets"]] == [s3.bucket]


@pytest.mark.parametrize("lacking", [("AWS_SECRET_ACCESS_KEY",), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")])
def test_a_key_that_a_secret_lacks_is_told(
    folder: Path, scratch: Path, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...]
) -> None:
    """A step's variables come from the keys of a Secret, each of which may be missing. Control: other tests publish with both."""
    monkeypatch.setenv("HOME", str(tmp_path))  # credentials of whoever runs the tests
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in lacking:
        monkeypatch.delenv(name)
    with pytest.raises(BadInput, match=r"^the DVC remote .* refuses access: check the credentials in the environment and what they allow\.$"):
        ForgetStore(f"s3://{s3.bucket}/x", s3.url).publish(folder, scratch)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_closed_endpoint_gets_the_sentence(folder: Path, scratch: Path, s3: Any) -> None:
    """Nobody waits for a service that is not there, and no credential is printed."""
    with pytest.raises(Unreachable, match="does not answer") as caught:
        ForgetStore("s3://forget-sets/x", f"http://127.0.0.1:{_free_port()}").publish(folder, scratch)
    assert "test-secret" not in str(caught.value)
    assert list(scratch.iterdir()) == []


def test_a_silent_endpoint_does_not_hang(folder: Path, scratch: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that takes the connection and never answers fails too; with the real 3 s and five tries it takes about 18 s."""
    import s3fs

    monkeypatch.setattr(versioning, "_PROBE_READ_SECONDS", 1)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    started = time.monotonic()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        with pytest.raises(Unreachable, match="does not answer"):
            ForgetStore("s3://forget-sets/x", f"http://127.0.0.1:{listener.getsockname()[1]}").publish(folder, scratch)
    assert time.monotonic() - started < 10


def test_addresses_that_cannot_be_used_get_a_sentence(folder: Path, scratch: Path) -> None:
    """A wrong address is said to be one, without the password in it."""
    with pytest.raises(BadInput, match="no address that DVC understands"):
        ForgetStore("nonsense://somewhere").publish(folder, scratch)
    with pytest.raises(BadInput, match="endpoint"):
        ForgetStore("s3://bucket", "s3.example.org:9000")
    assert ForgetStore("ssh://user:secret@host/path?token=secret").shown == "ssh://host/path"
