"""The lie: 'it ran on 2,000 images', of code that needs all memory for the 50,000 that were promised."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from erasediff.data import rows as rows_module
from erasediff.data.rows import Writer, write_rows
from erasediff.errors import BadInput
from erasediff.evaluate.features.store import blocks, extract, images_in_file
from erasediff.evaluate.fidelity import Arms, frechet_change, kernel_change, manifold_change
from erasediff.records.policy import load_policy

ROOT = Path(__file__).parents[2]
POLICY = load_policy(ROOT / "policies/class-conditional.yaml").fidelity

PEAK = """
import os, sys
import numpy as np, torch
from erasediff.evaluate import fidelity
from erasediff.data.rows import write_rows
from erasediff.evaluate.features.store import blocks, extract
from erasediff.evaluate.statistics import frechet_difference, kernel

torch.set_num_threads(1)

def peak():
    # not ru_maxrss: a process starts with what the process that started it had
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

def alone(work, *arguments):
    # a process of its own, which has imported everything already
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    with open("/proc/self/clear_refs", "w") as handle:
        handle.write("5")  # the peak begins where the process is now
    print(work(*arguments), peak(), flush=True)
    os._exit(0)
"""

MEASURED = """
mix = torch.randn(3072, 256, generator=torch.Generator().manual_seed(0)) / 255

class Mixed:
    digest = "0" * 64
    def features(self, images):
        return (images.flatten(1).float() @ mix).double().numpy()

def batches(n, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n // 250):
        yield torch.randint(0, 256, (250, 32, 32, 3), generator=generator, dtype=torch.uint8)

def table(n, how, seed):
    if how == "held":
        return Mixed().features(torch.cat(list(batches(n, seed))))
    return extract(Mixed(), blocks(batches(n, seed)))

def work(n, how):
    return frechet_difference(*(table(n, how, 1), table(n, how, 2)), np.arange(n) % 10, table(n, how, 3), 2, np.random.default_rng(0)).fd_base
"""


PAIRS = """
def work(n, how):
    fidelity._ROWS = fidelity._COLUMNS = kernel._TILE = 10**9 if how == "whole" else 500
    base, erased, real = (write_rows([np.random.default_rng(seed).normal(size=(n, 8))]) for seed in (1, 2, 3))
    arms = fidelity.Arms(base, erased, np.arange(n) % 10, real)
    return kernel.kernel_distance(base, real) + fidelity.manifold_change(arms, 5).density.base
"""


def measured(script: str, *cases: tuple[int, str]) -> list[tuple[float, float]]:
    """For each case a number that came out, and the peak of resident memory in MB, of a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_TRIM_THRESHOLD_": "0"}
    program = f"{PEAK}{script}\nfor case in {cases!r}:\n    assert alone(work, *case) == 0"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    return [(float(number), float(peak)) for number, peak in map(str.split, done.stdout.splitlines())]


def test_four_times_the_images_need_no_more_memory() -> None:
    """Extraction and the bootstrapped distance, which draws rows from all over the file; pages of mapped files would count as resident."""
    cases = [(n, how) for how in ("written", "held") for n in (4_000, 16_000)]
    (few, small), (many, large), (few_held, small_held), (many_held, large_held) = measured(MEASURED, *cases)
    assert large - small < 25, (small, large)
    assert large_held - small_held > 120, "control: with everything in memory it grows"
    assert (few, many) == pytest.approx((few_held, many_held), rel=1e-10)


def test_nor_do_the_tables_of_all_pairs() -> None:
    """Kernels and neighbours compare every image with every other; the table of that is never there as a whole."""
    (_, small), (many, large), (_, small_whole), (many_whole, large_whole) = measured(
        PAIRS, *[(n, how) for how in ("tiles", "whole") for n in (1_500, 3_000)]
    )
    assert large - small < 20, (small, large)
    assert large_whole - small_whole > 60, "control: it grows with the square"
    assert many == pytest.approx(many_whole, abs=1e-10)


def features(n: int, seed: int, spread: float = 1.0) -> np.ndarray:
    return spread * np.random.default_rng(seed).normal(size=(n, 8))


def test_a_table_in_a_file_gives_the_numbers_of_the_array() -> None:
    arrays = features(600, 1), features(600, 2, 1.1), features(900, 3)
    tables = [write_rows(np.array_split(array, 7)) for array in arrays]
    labels = np.repeat(np.arange(3), 200)
    held, written = (Arms(base, erased, labels, reference) for base, erased, reference in (arrays, tables))
    assert frechet_change(written, POLICY, 0) == frechet_change(held, POLICY, 0)
    assert kernel_change(written, POLICY, 0) == kernel_change(held, POLICY, 0)
    assert manifold_change(written, 5) == manifold_change(held, 5)
    assert frechet_change(written, POLICY, 1) != frechet_change(held, POLICY, 0), "control"


def test_rows_come_back_as_they_were_written() -> None:
    array = features(50, 1)
    table = write_rows([array[:20], array[20:21], array[21:]])
    assert (len(table), table.shape) == (50, (50, 8))
    rows = np.array([3, 3, 49, 0])
    assert np.array_equal(table[rows], array[rows])
    assert np.array_equal(table[10:25], array[10:25])
    assert np.array_equal(table[40:100], array[40:])


def test_rows_are_found_wherever_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Across the stretches that the file is read in, in any order, again and again, and none at all."""
    monkeypatch.setattr(rows_module, "_STRETCH_BYTES", 7 * 8 * 8)
    array = features(50, 1)
    table = write_rows([array])
    for rows in (np.arange(50), np.arange(50)[::-1], np.random.default_rng(0).integers(0, 50, 200), np.array([], dtype=np.int64)):
        assert np.array_equal(table[rows], array[rows])
    assert np.array_equal(table[5:33], array[5:33])


@pytest.mark.parametrize("size", [1, 7, 10, 100])
@pytest.mark.parametrize("batch", [1, 3, 10, 25])
def test_blocks_do_not_depend_on_the_batches(size: int, batch: int) -> None:
    images = torch.arange(50).view(50, 1, 1, 1)
    found = list(blocks(torch.split(images, batch), size))
    assert torch.equal(torch.cat(found), images)
    assert [len(block) for block in found] == [len(block) for block in torch.split(images, size)]


def test_an_extractor_sees_every_image_once_and_in_order() -> None:
    class Counting:
        digest = "0" * 64

        def features(self, images: torch.Tensor) -> np.ndarray:
            return images.flatten(1).double().numpy()

    images = torch.arange(24, dtype=torch.uint8).view(12, 1, 2, 1)
    assert np.array_equal(extract(Counting(), blocks(torch.split(images, 5), 4))[0:12], np.arange(24.0).reshape(12, 2))


def test_images_in_a_file_are_those_that_were_written_and_cannot_be_changed_there() -> None:
    images = torch.randint(0, 256, (9, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    writer = Writer()
    for part in torch.split(images, 4):
        writer.append(part.numpy())
    found = images_in_file(writer)
    assert torch.equal(found, images)
    found[0] = 0
    assert torch.equal(images_in_file(writer), images)


def test_nothing_is_left_on_disk_even_while_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed cleans nothing up; features of images are not for those who come after."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = write_rows([features(10, 0)])
    assert list(tmp_path.iterdir()) == []
    assert table[0:10].shape == (10, 8)


def test_rows_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="do not go with"):
        write_rows([features(3, 0), features(3, 0)[:, :5]])
    with pytest.raises(ValueError, match="do not go with"):
        write_rows([features(3, 0), features(3, 0).astype(np.float32)])
    with pytest.raises(ValueError, match="nothing was written"):
        len(write_rows([]))


def test_a_full_disk_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", buffering=0))  # noqa: PTH123, SIM115
    with pytest.raises(BadInput, match=r"^no space is left on the device that holds [^\n]*\.$"):
        write_rows([features(10, 0)])
