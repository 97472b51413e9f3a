"""Datasets as people write them, one writer a format, for tests that say the same of all."""

from __future__ import annotations

import csv
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(array: np.ndarray) -> bytes:
    """A PNG of uint8 [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def raw_png(size: tuple[int, int], depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by its own parts, for what PIL does not write: ``rows`` has a filter byte before each row, ``extra`` are chunks before the pixels."""
    header = struct.pack(">2I5B", *size, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def images(count: int) -> list[np.ndarray]:
    """Different grey images of 8x8."""
    return list(np.random.default_rng(count).integers(0, 256, (count, 8, 8), dtype=np.uint8))


def tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar file of these files in this order."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def labelled_folder(folder: Path, names: list[str]) -> None:
    """Pictures and a ``labels.csv``."""
    for number, image in enumerate(images(len(names))):
        (folder / f"{number}.png").write_bytes(png(image))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["file", "label"], *([f"{number}.png", name] for number, name in enumerate(names))])


def class_folders(folder: Path, names: list[str]) -> None:
    """A folder a class."""
    for number, (image, name) in enumerate(zip(images(len(names)), names, strict=True)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{number}.png").write_bytes(png(image))


def npz(folder: Path, names: list[str]) -> None:
    """Arrays."""
    np.savez(folder / "a.npz", images=np.stack(images(len(names))), labels=np.array(names))


def _encoded(count: int) -> pa.Array:
    return pa.array([png(image) for image in images(count)], pa.binary())


def parquet_names(folder: Path, names: list[str]) -> None:
    """Parquet with names."""
    pq.write_table(pa.table({"image": _encoded(len(names)), "label": names}), folder / "a.parquet")


def parquet_categories(folder: Path, names: list[str]) -> None:
    """Parquet with pandas' categories."""
    pq.write_table(pa.table({"image": _encoded(len(names)), "label": pa.array(names).dictionary_encode()}), folder / "a.parquet")


def hugging_face(folder: Path, names: list[str], split: str = "train") -> None:
    """Parquet as ``datasets`` writes it: a struct with bytes and path, numbers as labels, and their names in the metadata."""
    classes = list(dict.fromkeys(names))
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": value.as_py(), "path": f"{at}.png"} for at, value in enumerate(_encoded(len(names)))], struct_type)
    table = pa.table({"image": pictures, "label": pa.array([classes.index(name) for name in names], pa.int64())})
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=3)


def webdataset(folder: Path, names: list[str]) -> None:
    """Tar files as webdataset writes them."""
    files = {}
    for number, (image, name) in enumerate(zip(images(len(names)), names, strict=True)):
        files |= {f"{number:04}.png": png(image), f"{number:04}.cls": name.encode(), f"{number:04}.json": b"{}"}
    tar(folder / "shard-000000.tar", files)


WRITERS: dict[str, tuple[str, Callable[[Path, list[str]], None]]] = {
    "labels.csv": ("folder", labelled_folder),
    "class folders": ("imagefolder", class_folders),
    "npz": ("shards", npz),
    "parquet, names": ("shards", parquet_names),
    "parquet, categories": ("shards", parquet_categories),
    "parquet, ClassLabel": ("shards", hugging_face),
    "webdataset": ("shards", webdataset),
}
"""By format: the kind of dataset, and what writes one with these labels into an empty folder."""
