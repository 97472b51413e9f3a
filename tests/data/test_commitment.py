"""The lie: 'the images are gone', while a hash of them goes on saying who was among them."""

from __future__ import annotations

import hashlib
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from erasediff.data.commitment import commitment, indices_commitment, read_key, request_key
from erasediff.data.shards import pack
from erasediff.errors import BadInput, IntegrityError

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
