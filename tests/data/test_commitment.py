"""The lie: 'the images are gone', while a hash of them goes on saying who was among them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from erasediff.data.commitment import commitment, indices_commitment, read_key, request_key
from erasediff.data.shards import pack
from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.purge.keys import keys_store

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
LABELS, INDICES = np.zeros(6, dtype=np.int64), np.arange(3)


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_no_file_of_a_forget_set_has_a_hash_that_the_images_alone_give(tmp_path: Path) -> None:
    """Whoever holds the pictures and not the key packs other bytes: no file, no digest, no version is the same."""
    ours = pack(IMAGES, LABELS, INDICES, tmp_path / "ours", request_key(tmp_path / "a.key"), shard_size=2)
    guessed = pack(IMAGES, LABELS, INDICES, tmp_path / "guessed", request_key(tmp_path / "b.key"), shard_size=2)
    again = pack(IMAGES, LABELS, INDICES, tmp_path / "again", read_key(tmp_path / "a.key"), shard_size=2)
    assert ours != guessed
    assert not set(files(tmp_path / "ours").values()) & set(files(tmp_path / "guessed").values())
    assert (ours, files(tmp_path / "ours")) == (again, files(tmp_path / "again")), "control: with the key it is the same"


def test_the_seal_is_of_the_content(tmp_path: Path) -> None:
    """Under one key another image gives another seal, so that the commitment is one."""
    key = request_key(tmp_path / "a.key")
    assert commitment(key, "shard", b"ab", b"c") != commitment(key, "shard", b"a", b"bc")
    assert commitment(key, "shard", b"a") != commitment(key, "manifest", b"a")
    assert commitment(key, "shard", b"a") == commitment(key, "shard", b"a")


def test_a_commitment_to_positions_hangs_on_their_values_and_the_key_only() -> None:
    """A record cannot name one set and mean another; platform byte order and strides do not matter."""
    indices, key = np.arange(10, dtype=np.int64), bytes(32)
    assert indices_commitment(key, indices[::2]) == indices_commitment(key, indices[::2].astype(">i8"))
    assert indices_commitment(key, indices[::2]) != indices_commitment(key, indices[1::2])
    assert indices_commitment(key, indices) != indices_commitment(b"1" * 32, indices)
    assert indices_commitment(key, indices) != hashlib.sha256(indices.tobytes()).hexdigest()


def test_a_key_is_random_private_and_made_once(tmp_path: Path) -> None:
    """Two steps at once do not seal with two keys."""
    path, found = tmp_path / "keys" / "a.key", set()
    threads = [threading.Thread(target=lambda: found.add(request_key(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {read_key(path)}
    assert request_key(tmp_path / "keys" / "b.key") not in found
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.key", "b.key"]


def test_a_key_that_is_gone_or_cut_is_not_replaced_in_silence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is gone"):
        read_key(tmp_path / "a.key")
    (tmp_path / "a.key").write_bytes(b"short")
    with pytest.raises(IntegrityError, match="5 bytes instead of 32"):
        request_key(tmp_path / "a.key")


DYING = """
import os, signal, sys
from pathlib import Path
from erasediff.data.commitment import request_key

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

{where} = die
request_key(Path(sys.argv[1]))
"""


@pytest.fixture(params=["os.link", "Path.unlink"])
def after_a_kill(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The path of a key whose maker was killed: before the key got its name, or before it lost its temporary one."""
    path = tmp_path / "keys" / "5f3a.key"
    command = [sys.executable, "-c", DYING.format(where=request.param), str(path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert path.exists() == (request.param == "Path.unlink")
    return path


def secrets_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def purged(key: Path) -> int:
    """Purge a key twice, as after a kill, and say how many names were found."""
    items = keys_store(key).look().items
    for item in (*items, *items):
        item.remove()
    assert not keys_store(key).look().items
    return len(items)


def test_no_name_of_a_key_survives_its_purge_after_a_kill(after_a_kill: Path) -> None:
    other = request_key(after_a_kill.with_name("77c1.key"))
    left = secrets_in(after_a_kill.parent)
    assert len(set(left.values()) - {other}) == 1, "control: a secret is there, under one name or two"
    assert purged(after_a_kill) == len(left) - 1
    assert secrets_in(after_a_kill.parent) == {"77c1.key": other}


def test_what_a_killed_maker_left_goes_when_the_key_is_asked_for_again(after_a_kill: Path) -> None:
    alive = after_a_kill.with_name(".5f3a.key.alive.part")
    with alive.open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(bytes(32))
        handle.flush()
        key = request_key(after_a_kill)
        assert secrets_in(after_a_kill.parent) == {"5f3a.key": key, alive.name: bytes(32)}, "control: the name of a living process stays"
    assert request_key(after_a_kill) == key
    assert secrets_in(after_a_kill.parent) == {"5f3a.key": key}


def test_a_temporary_name_of_an_earlier_version_is_found_by_the_file_that_it_names(tmp_path: Path) -> None:
    """It does not say which request it belongs to, and the key may be known by its file alone."""
    path, other = tmp_path / "5f3a.key", tmp_path / "77c1.key"
    for key in (path, other):
        request_key(key)
        os.link(key, tmp_path / f".key-{key.stem}.part")
    (tmp_path / ".key-never.part").write_bytes(bytes(32))
    assert purged(path) == 3
    assert sorted(secrets_in(tmp_path)) == [".key-77c1.part", "77c1.key"], "control: another request keeps both names"


def test_a_purge_that_takes_the_key_away_from_its_maker_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "5f3a.key", os.link

    def purge_first(*names: Path) -> None:
        assert purged(path) == 1
        link(*names)

    monkeypatch.setattr("os.link", purge_first)
    with pytest.raises(BadInput, match="the key of this forget set is gone"):
        request_key(path)
    assert not secrets_in(tmp_path)
