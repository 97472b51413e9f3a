"""``python -m benchmarks.data FOLDER``: a million pictures as shards and as parquet, read, versioned, split and compared (data.json).

FOLDER is made and removed, and holds 7 GB in between. Beside each step the same bytes are read from a file and hashed, before and after it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import Row, write_rows
from erasediff.data.datasets import ImageDataset, load_dataset
from erasediff.data.looks import Looks
from erasediff.data.split import partition, split_dataset
from erasediff.data.versioning import ForgetStore
from erasediff.records.config import DatasetConfig
from erasediff.steps.version_forget_set import pack_unchanged

IMAGES, SHARD, CLASSES, SIDE = 1_000_000, 20_000, 10, 32
COPIES = 500
"""Pictures of the class to forget that lie under another label again, as they are and as many made darker."""
FORMATS = ("npz", "parquet")
_CHUNK = 1 << 20


def pictures(number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A shard's pictures, smooth shapes with some noise, and labels; shard 1 begins with copies of shard 0's pictures of class 0."""
    rng = np.random.default_rng(number)
    shapes = rng.integers(0, 240, (SHARD, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    images, labels = shapes + rng.integers(0, 16, shapes.shape, dtype=np.uint8), rng.integers(0, CLASSES, SHARD)
    if number == 1:
        first, known = pictures(0)
        copied = first[known == 0][: 2 * COPIES]
        copied[COPIES:] = np.rint(copied[COPIES:] * 0.95)
        images[: len(copied)], labels[: len(copied)] = copied, 1
    return images, labels


def write_shard(folder: Path, kind: str, number: int) -> None:
    """Write a shard of a kind."""
    images, labels = pictures(number)
    path = folder / f"{number:05d}.{kind}"
    if kind == "npz":
        np.savez(path, images=images, labels=labels)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": pa.array(map(_png, images), pa.binary()), "label": labels}), path, row_group_size=2_000, use_dictionary=False)


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_and_hash(paths: list[Path]) -> float:
    """Seconds that the bytes of files take."""
    started, digest = time.perf_counter(), hashlib.sha256()
    for path in paths:
        with path.open("rb") as handle:
            while part := handle.read(_CHUNK):
                digest.update(part)
    return time.perf_counter() - started


def peak_rss_mb() -> float:
    """The peak of resident memory since :func:`_from_here`."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def _from_here() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def measured(kind: str, step: str, count: int, paths: list[Path], work: Callable[[], object]) -> Row:
    """Do a step, between two readings of the same bytes."""
    before = read_and_hash(paths)
    _from_here()
    started = time.perf_counter()
    work()
    seconds, peak = time.perf_counter() - started, peak_rss_mb()
    disk = (before + read_and_hash(paths)) / 2
    return {
        "format": kind,
        "step": step,
        "images": count,
        "images_per_s": round(count / seconds),
        "ratio_to_disk": round(disk / seconds, 2),
        "peak_rss_mb": round(peak),
    }


def steps(folder: Path, kind: str, count: int) -> list[Row]:
    """Every step on a folder of shards, in a process that does nothing else."""
    shards, raw, scratch = sorted((folder / kind).iterdir()), folder / "raw", folder / "scratch"
    loaded: list[ImageDataset] = []
    config = DatasetConfig(name="million", kind="shards", path=str(folder / kind))
    rows = [measured(kind, "read", count, shards, lambda: loaded.append(load_dataset(config)))]
    (dataset,) = loaded
    with raw.open("wb") as handle:
        for block in dataset.images.blocks():
            handle.write(block.data)
    split = split_dataset(dataset.labels, dataset.class_names, 0)

    def version() -> None:
        anew = ImageDataset(dataset.name, dataset.images, dataset.labels, dataset.class_names)  # whose digest is not known yet
        pack_unchanged(anew, dataset.digest(), dataset.labels, split.forget, scratch / "forget", bytes(32))
        ForgetStore(str(folder / "remote")).publish(scratch / "forget", scratch)

    def parted() -> None:
        split_dataset(dataset.labels, dataset.class_names, 0)
        partition(dataset.labels, config.holdout_share, config.holdout_seed)

    def compare() -> None:
        found = Looks(dataset.images).twins(dataset.labels, split.retain, split.forget)
        assert (len(found.at), int(found.exact.sum())) == (2 * COPIES, COPIES), (len(found.at), int(found.exact.sum()))

    for step, work in (("digest", dataset.digest), ("version", version), ("split", parted), ("compare", compare)):
        rows.append(measured(kind, step, count, [raw], work))
    return rows


def run(folder: Path, count: int) -> Iterator[Row]:
    """The rows of both formats; each is written, measured and removed before the next."""
    for kind in FORMATS:
        target = folder / kind
        target.mkdir(parents=True)
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            list(pool.map(partial(write_shard, target, kind), range(count // SHARD)))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            yield from pool.submit(steps, folder, kind, count).result()
        shutil.rmtree(folder)


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES, help="a multiple of the shard's, and two shards at least")
    asked = parser.parse_args()
    if asked.folder.exists():
        sys.exit(f"{asked.folder} exists: name an empty place, for it is removed")
    if asked.images < 2 * SHARD or asked.images % SHARD:
        sys.exit(f"--images {asked.images} is not a multiple of {SHARD} from {2 * SHARD} on: correct it")
    try:
        rows = list(run(asked.folder, asked.images))
    finally:
        shutil.rmtree(asked.folder, ignore_errors=True)
    for row in rows:
        print(row)
    write_rows("data", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
