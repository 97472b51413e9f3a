"""The lie: 'this is the forget set', said of bytes that changed, or two versions for one and the same set."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from erasediff.data import shards
from erasediff.data.shards import MANIFEST, pack, unpack
from erasediff.errors import BadInput, IntegrityError
from erasediff.files import sha256_bytes, sha256_folder

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
LABELS = (np.arange(20) % 4).astype(np.int64)
INDICES = np.flatnonzero(LABELS == 2)
KEY = bytes(range(32))


def test_what_is_packed_comes_back(tmp_path: Path) -> None:
    """Nothing is lost or reordered on the way."""
    digest = pack(IMAGES, LABELS, INDICES, tmp_path / "f", KEY, shard_size=2)
    images, labels, indices = unpack(tmp_path / "f", digest)
    assert np.array_equal(images, IMAGES[INDICES])
    assert np.array_equal(labels, LABELS[INDICES])
    assert np.array_equal(indices, INDICES)
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [MANIFEST, *(f"shard-{n:05d}.npz" for n in range(3))]


def test_the_same_content_has_the_same_bytes_at_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forget set has one version, whenever it is packed."""
    first = pack(IMAGES, LABELS, INDICES, tmp_path / "a", KEY)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    second = pack(IMAGES, LABELS, INDICES, tmp_path / "b", KEY)
    assert first == second
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b")


def test_control_an_archive_that_carries_the_time_fails_that_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with a writer that stamps its members the manifest's digest changes with the clock."""

    def stamping(arrays: dict[str, np.ndarray]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("images.npy", arrays["images"].tobytes())
        return buffer.getvalue()

    monkeypatch.setattr(shards, "_npz", stamping)
    first = pack(IMAGES, LABELS, INDICES, tmp_path / "a", KEY)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert first != pack(IMAGES, LABELS, INDICES, tmp_path / "b", KEY)


def test_the_bytes_are_the_same_with_every_numpy_and_python(tmp_path: Path) -> None:
    """An upgrade that would give every forget set another version is noticed."""
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    digest = pack(images, np.array([0, 1], dtype=np.int64), np.array([0, 1], dtype=np.int64), tmp_path / "f", KEY)
    assert digest == "751900f3ff7192bc786f135bfe25a9baa6de4367f4ad07a6f59e9b38fbf696b9"


def test_packing_twice_leaves_what_packing_once_leaves(tmp_path: Path) -> None:
    """A step that runs again does not leave old shards beside new ones."""
    pack(IMAGES, LABELS, INDICES, tmp_path / "f", KEY, shard_size=1)
    digest = pack(IMAGES, LABELS, INDICES, tmp_path / "f", KEY, shard_size=4)
    assert len(list((tmp_path / "f").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    unpack(tmp_path / "f", digest)


@pytest.mark.parametrize("name", [MANIFEST, "shard-00001.npz"])
def test_one_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    """A shard or manifest that changed under way is not trained on."""
    digest = pack(IMAGES, LABELS, INDICES, tmp_path / "f", KEY, shard_size=2)
    path = tmp_path / "f" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=name):
        unpack(tmp_path / "f", digest)


def test_a_missing_shard_is_found(tmp_path: Path) -> None:
    """A part is not taken for the whole."""
    digest = pack(IMAGES, LABELS, INDICES, tmp_path / "f", KEY, shard_size=2)
    (tmp_path / "f" / "shard-00002.npz").unlink()
    with pytest.raises(IntegrityError, match="missing"):
        unpack(tmp_path / "f", digest)


def test_a_pickle_is_never_loaded_even_under_a_matching_digest(tmp_path: Path) -> None:
    """Whoever can write the manifest still cannot run code here."""
    folder = tmp_path / "f"
    pack(IMAGES, LABELS, INDICES, folder, KEY)
    objects = np.array([{}] * len(INDICES), dtype=object)
    np.savez(folder / "shard-00000.npz", images=objects, labels=LABELS[INDICES], indices=INDICES)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["shards"][0]["sha256"] = sha256_bytes((folder / "shard-00000.npz").read_bytes())
    data = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(BadInput, match="pickle"):
        unpack(folder, sha256_bytes(data))


def test_nothing_to_pack_gets_a_sentence(tmp_path: Path) -> None:
    """An empty forget set gets no version."""
    with pytest.raises(BadInput, match="at least one"):
        pack(IMAGES, LABELS, INDICES[:0], tmp_path / "f", KEY)
    assert not (tmp_path / "f").exists()
