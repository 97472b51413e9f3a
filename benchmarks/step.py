"""``python -m benchmarks.step``: what a step of EraseDiff costs over the bare cost of its own passes.

The bare passes are the same forwards and backwards of the same model on batches that are there already: no drawing of
noise, no target, no λ, no Adam, no EMA. Both are timed in turn in one process; the median of the paired ratios of CPU
time is written, so that noise from other processes meets both alike. The two gradients of a step are computed at once,
which spares time and no work: the time that passes is beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.released import Released
from benchmarks.results_file import Row, write_rows
from erasediff.data.datasets import load_dataset
from erasediff.environment import configure_process
from erasediff.models.denoiser import to_unit
from erasediff.models.families.unet import ClassConditionalUNet, build_unet
from erasediff.models.noised import NoisedBatch
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.records.config import EraseConfig, RunConfig
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.trainer import Erasure
from erasediff.unlearn.workbench import ErasureData

PAIRS = 60
_PAPER: dict[str, object] = {"target": "relabel", "visited_share": 0.0, "truth_share": 1.0, "starting_point_decay": 0.0}
RELEASED = "released algorithm (relabel, two inner steps)"
CASES: dict[str, dict[str, object]] = {
    "relabel": _PAPER,
    "relabel, pool of 100": _PAPER | {"teacher_pool": 100},
    "noise": _PAPER | {"target": "noise"},
    "mixture, drawn": {"mixture_estimate": "drawn", "repulsion": 0.0, "truth_share": 1.0},
    "mixture, as by default": {},
    "mixture, pool of 100": {"teacher_pool": 100},
    RELEASED: _PAPER | {"multiplier": "fixed"},
}


def erasure_of(name: str) -> Erasure:
    """A case on the default model and data, with an untrained network: a pass costs the same."""
    config = RunConfig()
    dataset = load_dataset(config.dataset)
    images, labels = to_unit(torch.from_numpy(dataset.images[:])), torch.from_numpy(dataset.labels)
    data = ErasureData(images[labels == 0], labels[labels == 0], images[labels != 0], labels[labels != 0], dataset.classes)
    torch.manual_seed(0)
    unet = build_unet(config.denoiser, 1, 8, dataset.classes)
    base = ClassConditionalUNet.of(unet, build_scheduler(config.sampler, squared_cosine(config.denoiser.train_timesteps)))
    erase = EraseConfig.model_validate(config.erase.model_dump() | CASES[name])
    return Erasure(base, data, erase, 0, Compute(), method=Released if name == RELEASED else None)


def bare_passes(erasure: Erasure, batch: NoisedBatch, forwards: int, backwards: int) -> Callable[[], None]:
    """``backwards`` passes with a graph and the rest without, of the same model and batch."""
    bench = erasure.bench
    parameters: list[Tensor] = list(bench.parameters)

    def once() -> None:
        for _ in range(backwards):
            loss = (bench.denoiser(batch.noised, batch.timesteps, batch.labels) - batch.goal).square().mean()
            torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for _ in range(forwards - backwards):
                bench.base(batch.noised, batch.timesteps, batch.labels)

    return once


class Cost(NamedTuple):
    """Seconds that pass during a call, and seconds of CPU that this process takes for it, in all its threads."""

    wall: float
    cpu: float

    @classmethod
    def of(cls, action: Callable[[], object]) -> Cost:
        """Call, and say what it cost."""
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        return cls(time.perf_counter() - wall, time.process_time() - cpu)


def measure(name: str) -> Row:
    """Pairs of a step and its bare passes, as a row."""
    erasure = erasure_of(name)
    prepare_ms = 1000 * Cost.of(lambda: erasure.method.prepare(erasure.bench)).wall
    before = (erasure.passes.forward, erasure.passes.backward)
    erasure.advance()
    forwards, backwards = erasure.passes.forward - before[0], erasure.passes.backward - before[1]
    bare = bare_passes(erasure, erasure.bench.retain_batch(), forwards, backwards)
    bare()
    pairs = [(Cost.of(erasure.advance), Cost.of(bare)) for _ in range(PAIRS)]
    row: Row = {
        "target": name,
        "step_over_floor": round(statistics.median(step.cpu / floor.cpu for step, floor in pairs), 3),
        "forwards": forwards,
        "backwards": backwards,
        "step_ms": round(1000 * statistics.median(step.wall for step, _ in pairs), 1),
        "prepare_ms": round(prepare_ms, 1),
        "pairs": PAIRS,
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Measure every case."""
    configure_process()
    torch.set_num_threads(1)
    write_rows("step", [measure(name) for name in CASES])


if __name__ == "__main__":
    main()
