"""The lie: 'a million pictures', of code that has all of them in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
COUNT, PICTURE_MB = 40_000, 40_000 * 32 * 32 * 3 / 1e6
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from erasediff.data.datasets import load_dataset
from erasediff.data.looks import Looks
from erasediff.data.shards import pack
from erasediff.data.split import split_dataset
from erasediff.records.config import DatasetConfig
import scipy.fft

def peak():
    # not ru_maxrss: a process starts with what the process that started it had
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1e3 for line in status if line.startswith("VmHWM"))

folder, how = Path(sys.argv[1]), sys.argv[2]
before = peak()
dataset = load_dataset(DatasetConfig(name="many", kind="shards", path=str(folder / "data")))
if how == "whole":
    everything = dataset.images[:]
split = split_dataset(dataset.labels, dataset.class_names, 0)
digest = pack(dataset.images, dataset.labels, split.forget, folder / how, bytes(32))
found = Looks(dataset.images).twins(dataset.labels, split.retain, split.forget)
print(dataset.digest(), digest, len(found.at), peak() - before)
"""


def test_a_dataset_is_read_versioned_split_and_compared_in_the_memory_of_a_few_batches(tmp_path: Path) -> None:
    """Control: with the images in memory the same program exceeds the bound."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    shards = [(rng.integers(0, 256, (COUNT // 4, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, COUNT // 4)) for _ in range(4)]
    shards[3][0][:5], shards[3][1][:5] = shards[0][0][shards[0][1] == 0][:5], 1
    for number, (images, labels) in enumerate(shards):
        np.savez(tmp_path / f"data/{number}.npz", images=images, labels=labels)
    blocks, whole = (measured(tmp_path, how) for how in ("blocks", "whole"))
    assert blocks[:3] == whole[:3]
    assert blocks[2] == "5"
    assert float(blocks[3]) < 0.8 * PICTURE_MB, (blocks, whole)
    assert float(whole[3]) > PICTURE_MB, "control"


def measured(folder: Path, how: str) -> list[str]:
    """The digests of the dataset and of the forget set, the copies that were found, and the MB that a process of its own took for it."""
    command = [sys.executable, "-c", PROGRAM, str(folder), how]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_TRIM_THRESHOLD_": "0"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
