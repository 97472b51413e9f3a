"""Images packed into a few deterministic shards: what DVC versions, and what is checked when it comes back.

Every file carries a commitment under the request's key, so that nobody can compute its digest from the images once the key is gone.
"""

from __future__ import annotations

import io
import math
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from erasediff.data.commitment import commitment
from erasediff.data.readers.limits import MAX_SHARD_BYTES
from erasediff.data.readers.npz import load_npz
from erasediff.data.rows import THREADS, Rows
from erasediff.errors import BadInput, IntegrityError
from erasediff.files import publish_folder, read_bounded, sha256_bytes
from erasediff.records.base import MAX_DOCUMENT_BYTES, Sha256, Strict

MANIFEST = "manifest.json"
_ARRAYS = ("images", "labels", "indices")
_SEAL = "seal"
_SHARD_BYTES = 64 << 20


class Shard(Strict):
    """One shard of a packed folder."""

    file: str = Field(pattern=r"^shard-[0-9]{5}\.npz$")
    count: int = Field(ge=1)
    sha256: Sha256


class ShardManifest(Strict):
    """``manifest.json``: what a packed folder holds."""

    format: Literal["erasediff-shards/2"] = "erasediff-shards/2"
    count: int = Field(ge=1)
    image_shape: tuple[int, int, int]
    shards: tuple[Shard, ...] = Field(min_length=1, max_length=100_000)
    seal: Sha256


def pack(images: Rows, labels: NDArray[np.int64], indices: NDArray[np.int64], folder: Path, key: bytes, shard_size: int = 4096) -> str:
    """Write the images at ``indices`` as shards; the same content and key always give the same bytes.

    Args:
        images: uint8 [N, H, W, C] of the whole dataset; two shards of them are in memory at a time.
        labels: int64 [N] of the whole dataset.
        indices: int64 [K], the positions to pack.
        folder: the target; it appears complete or not at all, and replaces an existing one.
        key: the request's.
        shard_size: images per shard; fewer where they have more than 64 MiB.

    Returns:
        Hex SHA-256 of the manifest, which names the SHA-256 of every shard.

    Raises:
        BadInput: there is nothing to pack, ``shard_size`` is not positive, or the disk is full.
    """
    if not len(indices) or shard_size < 1:
        raise BadInput(f"{len(indices)} images cannot be packed in shards of {shard_size}: give at least one image per shard.")
    digest = ""

    def fill(temporary: Path) -> str:
        nonlocal digest
        size = min(shard_size, max(1, _SHARD_BYTES // math.prod(images.shape[1:])))

        def write(number: int) -> Shard:
            chosen = indices[number * size : (number + 1) * size]
            data = _npz(_sealed(key, images[chosen], labels[chosen], chosen))
            shard = Shard(file=f"shard-{number:05d}.npz", count=len(chosen), sha256=sha256_bytes(data))
            (temporary / shard.file).write_bytes(data)
            return shard

        with ThreadPoolExecutor(THREADS) as pool:
            shards = list(pool.map(write, range(math.ceil(len(indices) / size))))
        height, width, channels = images.shape[1:]
        seal = commitment(key, "manifest", *(bytes.fromhex(shard.sha256) for shard in shards)).hex()
        manifest = ShardManifest(count=len(indices), image_shape=(height, width, channels), shards=tuple(shards), seal=seal)
        (temporary / MANIFEST).write_bytes(manifest.canonical())
        digest = manifest.digest()
        return folder.name

    publish_folder(folder.parent, fill)
    return digest


def unpack(folder: Path, expected_manifest_sha256: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Read a packed folder back and check every byte against the manifest's digest.

    Returns:
        images uint8 [K, H, W, C], labels int64 [K], indices int64 [K], in the order they were packed.

    Raises:
        BadInput: the folder or its manifest is missing.
        IntegrityError: a file is missing, foreign, or not what the manifest names.
    """
    data = read_bounded(folder / MANIFEST, MAX_DOCUMENT_BYTES, "the shard manifest")
    if sha256_bytes(data) != expected_manifest_sha256:
        raise IntegrityError(f"{folder / MANIFEST} is not the manifest that the record names: fetch the forget set again.")
    manifest = ShardManifest.parse_json(data, str(folder / MANIFEST))
    shards = [_read_shard(folder, shard, manifest.image_shape) for shard in manifest.shards]
    images, labels, indices = (np.concatenate([shard[name] for shard in shards]) for name in _ARRAYS)
    if len(indices) != manifest.count:
        raise IntegrityError(f"{folder} holds {len(indices)} images where its manifest says {manifest.count}: pack it again.")
    return images, labels, indices


def _read_shard(folder: Path, shard: Shard, image_shape: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
    path = folder / shard.file
    if not path.is_file():
        raise IntegrityError(f"{path} is missing: fetch the forget set again.")
    data = read_bounded(path, MAX_SHARD_BYTES, "the shard")
    if sha256_bytes(data) != shard.sha256:
        raise IntegrityError(f"{path} is not the shard that the manifest names: fetch the forget set again.")
    arrays = load_npz(data, path, _ARRAYS)
    shapes = {"images": (shard.count, *image_shape), "labels": (shard.count,), "indices": (shard.count,)}
    types = {"images": np.dtype(np.uint8), "labels": np.dtype(np.int64), "indices": np.dtype(np.int64)}
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != types[name]:
            raise IntegrityError(f"{path} holds {name} of {array.dtype} {list(array.shape)}, unlike its manifest: pack it again.")
    return arrays


def _sealed(key: bytes, *arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a shard with a commitment to them."""
    seal = commitment(key, "shard", *(np.ascontiguousarray(array).data for array in arrays))
    return {**dict(zip(_ARRAYS, arrays, strict=True)), _SEAL: np.frombuffer(seal, dtype=np.uint8)}


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    # Written member by member: np.savez forces zip64, whose header differs between patch versions of Python (3.11.2, 3.11.7).
    # Stored, not compressed: zlib's output differs between its builds. DVC would see another version.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            info.create_system = 3  # Unix, on every system
            info.file_size = header.tell() + array.nbytes
            with archive.open(info, "w") as member:
                member.write(header.getvalue())
                member.write(np.ascontiguousarray(array).data)
    return buffer.getvalue()
