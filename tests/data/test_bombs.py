"""The lie: 'this is a small file', believed because a header says so."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from erasediff.data.readers import limits
from erasediff.data.readers.kinds import read
from erasediff.data.readers.pages import Chunk, PageError, read_chunks, read_pages
from erasediff.errors import BadInput

MIB = 1 << 20


_POOLS: list[pa.MemoryPool] = []
"""Kept for ever: pyarrow's threads give memory back after a read has ended, and crash if the pool is gone."""


@contextmanager
def _arrow_peak() -> Iterator[Callable[[], int]]:
    """The most memory that pyarrow held within the block."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    _POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield lambda: int(pool.max_memory())
    finally:
        pa.set_memory_pool(before)


def _bmp(padding: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 7).save(buffer, "BMP")
    return buffer.getvalue() + os.urandom(padding)


def _repeated(value: object, type_: pa.DataType, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array([value], type=type_))


def _write(path: Path, columns: dict[str, pa.Array], **options: object) -> None:
    pq.write_table(pa.table(columns), path, store_schema=False, compression="zstd", dictionary_pagesize_limit=512 * MIB, **options)
    assert path.stat().st_size < 4 * MIB, "control: the file is small"


def test_one_picture_hundreds_of_times_takes_the_memory_of_a_few(tmp_path: Path) -> None:
    """A dictionary repeats what is in the file once; the footer counts it once too. The rows are right, and read."""
    _write(tmp_path / "a.parquet", {"image": _repeated(_bmp(2 * MIB), pa.binary(), 300), "label": pa.array([0, 1] * 150)})
    with _arrow_peak() as peak:
        raw = read("shards", tmp_path)
    assert raw.images.shape == (300, 8, 8, 1)
    assert (raw.images[:] == 7).all()
    assert raw.labels == ["0", "1"] * 150
    assert peak() < 200 * MIB
    with _arrow_peak() as peak:
        pq.read_table(tmp_path / "a.parquet")
    assert peak() > 500 * MIB, "control: so it is when it is read as a whole"


def test_a_long_label_hundreds_of_times_is_refused(tmp_path: Path) -> None:
    """The other column can do the same."""
    _write(tmp_path / "a.parquet", {"image": _repeated(_bmp(0), pa.binary(), 300), "label": _repeated("x" * 2 * MIB, pa.string(), 300)})
    with _arrow_peak() as peak, pytest.raises(BadInput, match="a label of 2097152 characters"):
        read("shards", tmp_path)
    assert peak() < 200 * MIB


def test_a_page_that_unpacks_to_more_than_a_page_is_refused_before_it_is(tmp_path: Path) -> None:
    """Zeros pack well, and pyarrow makes room for all of them."""
    zeros = pa.array([bytes(200 * MIB), b""], pa.binary())
    for options in ({"use_dictionary": False}, {"use_dictionary": True}):
        _write(tmp_path / "a.parquet", {"image": zeros, "label": pa.array([0, 1])}, **options)
        with _arrow_peak() as peak, pytest.raises(BadInput, match=r"a page that unpacks to 2097152\d\d bytes"):
            read("shards", tmp_path)
        assert peak() < 16 * MIB
        with _arrow_peak() as peak:
            pq.read_table(tmp_path / "a.parquet")
        assert peak() > 200 * MIB, "control: so it is when it is read"


def test_pages_are_counted_as_the_footer_of_an_honest_file_counts_them(tmp_path: Path) -> None:
    """Control: the headers that are looked at are those of the file's own pages."""
    values = pa.array([os.urandom(1000) for _ in range(300)] + [b"x" * 1000] * 300, pa.binary())
    for version in ("1.0", "2.0"):
        pq.write_table(pa.table({"image": values}), tmp_path / "a.parquet", row_group_size=500, data_page_size=20_000, data_page_version=version)
        metadata = pq.read_metadata(tmp_path / "a.parquet")
        with (tmp_path / "a.parquet").open("rb") as handle:
            for group, found in enumerate(read_chunks(handle)):
                chunk = metadata.row_group(group).column(0)
                assert found == Chunk("image", chunk.dictionary_page_offset, chunk.total_compressed_size, (500, 100)[group])
                pages = read_pages(handle, found.start, found.length)
                assert pages.values == chunk.num_values
                assert 0 < pages.words <= 301
                assert (20_000, 1_000)[group] < pages.largest < chunk.total_uncompressed_size


@pytest.mark.parametrize("data", [b"", b"\x15", b"\xff" * 40, b"\x1c" * 200, b"\x15\x80" + b"\x80" * 20, b"\x18\xff\xff\xff\x7f", b"\0"])
def test_bytes_that_are_no_page_are_an_error(data: bytes) -> None:
    """A damaged header ends with a sentence: no endless number, no endless nesting, no endless reading."""
    with pytest.raises(PageError):
        read_pages(io.BytesIO(data), 0, max(1, len(data)))


def test_damage_anywhere_in_a_parquet_file_is_a_sentence(tmp_path: Path) -> None:
    """No byte of a file from outside ends with a traceback."""
    table = pa.table({"image": pa.array([_bmp(0)] * 4, pa.binary()), "label": ["a", "b"] * 2})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", write_page_checksum=True)
    whole = (tmp_path / "a.parquet").read_bytes()
    refused = 0
    for at in range(0, len(whole), 7):
        (tmp_path / "a.parquet").write_bytes(whole[:at] + bytes([whole[at] ^ (0x55 if at % 2 else 0x80)]) + whole[at + 1 :])
        try:
            read("shards", tmp_path)
        except BadInput:
            refused += 1
    assert refused > 20, "control: damage is found"


def _npy(array: np.ndarray, promised: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": array.dtype.str, "fortran_order": False, "shape": promised})
    return buffer.getvalue() + array.tobytes()


def _npz(path: Path, images: bytes, labels: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", labels)


def test_arrays_that_promise_other_sizes_are_refused(tmp_path: Path) -> None:
    """Neither the array's header nor the archive's decides how much is read."""
    pixels, names = np.zeros((4, 8, 8), dtype=np.uint8), np.array(["a", "b"] * 2)
    path = tmp_path / "a.npz"
    _npz(path, _npy(pixels, (4, 8, 8)), _npy(names, (4,)))
    assert read("shards", tmp_path).labels == ["a", "b", "a", "b"]
    for promised in (4_000_000, 3):
        _npz(path, _npy(pixels, (promised, 8, 8)), _npy(names, (promised,)))
        with pytest.raises(BadInput, match=r"not a whole \.npz"):
            read("shards", tmp_path)
    # The archive's headers promise as much as the array's, and the bytes are not there.
    large = _npy(np.zeros((5, 8, 8), dtype=np.uint8), (4_000, 8, 8))
    _npz(path, large, _npy(np.zeros(4_000, dtype=np.uint8), (4_000,)))
    there, promised = struct.pack("<I", len(large)), struct.pack("<I", len(large) + 3_995 * 64)
    data = path.read_bytes()
    assert data.count(there) == 2, "control: it stands before the member and in the directory"
    path.write_bytes(data.replace(there, promised))
    with pytest.raises(BadInput, match=r"not a whole \.npz"):
        read("shards", tmp_path)


def test_a_tar_that_promises_a_large_file_is_refused(tmp_path: Path) -> None:
    """What is promised is not read, be it there or not."""
    member = tarfile.TarInfo("0.png")
    for size, words in ((10 << 30, "has 10737418240 bytes, more than"), (limits.MAX_PICTURE_FILE_BYTES, "not a whole tar file")):
        member.size = size
        (tmp_path / "a.tar").write_bytes(member.tobuf() + b"\0" * 2048)
        with pytest.raises(BadInput, match=words):
            read("shards", tmp_path)
    member.size, member.type, member.linkname = 0, tarfile.SYMTYPE, "/etc/hostname"
    (tmp_path / "a.tar").write_bytes(member.tobuf() + b"\0" * 2048)
    with pytest.raises(BadInput, match=r"0\.png .* is a link or another kind of entry"):
        read("shards", tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_that_promises_more_takes_what_is_there(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four billion images of nothing are not made room for, and images behind the last are found."""
    pack = gzip.compress if suffix else bytes

    def write(promised: int, pixels: bytes) -> None:
        (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(struct.pack(">4I", 2051, promised, 8, 8) + pixels))
        (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(struct.pack(">2I", 2049, promised) + bytes(min(promised, 5000))))

    write(3, bytes(3 * 64))
    assert len(read("idx", tmp_path).labels) == 3
    write(4_000_000_000, bytes(5000 * 64))
    with pytest.raises(BadInput, match="has or promises 256000000000 bytes of pixels, above"):
        read("idx", tmp_path)
    write(6000, bytes(5000 * 64))
    with pytest.raises(BadInput, match=r"holds \d+ bytes where its header promises"):
        read("idx", tmp_path)
    write(3, bytes(3 * 64 + 50 * MIB))
    with pytest.raises(BadInput, match="holds more than the 192 bytes"):
        read("idx", tmp_path)


def test_the_dataset_is_bounded_however_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that does not say how many images it has is counted while it is read; what is reduced counts as it is kept."""
    _write(tmp_path / "a.parquet", {"image": _repeated(_bmp(0), pa.binary(), 5000), "label": pa.array([0, 1] * 2500)})
    monkeypatch.setattr(limits, "MAX_DATASET_BYTES", 5000 * 64)
    assert len(read("shards", tmp_path).labels) == 5000
    monkeypatch.setattr(limits, "MAX_DATASET_BYTES", 5000 * 64 - 1)
    with pytest.raises(BadInput, match="bytes of pixels, above 319999"):
        read("shards", tmp_path)
