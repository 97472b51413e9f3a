"""``python -m benchmarks.serve``: images a second of the server against eager PyTorch and against the bare onnxruntime loop.

All of it on one thread each, in rounds in which every setting has its turn, so that a busy machine is busy for all. The digits'
base is served: a benchmark needs no verdict, so it writes a manifest of its own. Solvers are compared by the Fréchet distance of
their images to real ones first. ``results/serve.json`` has a row a setting; ``ratio_to_eager`` compares with eager PyTorch by
DDIM-50 on the same number of images at once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks.client import Client, serving
from benchmarks.results_file import ROOT, Row, write_rows
from benchmarks.subjects import Prepared, prepare, subject
from erasediff.environment import configure_process
from erasediff.evaluate.statistics.frechet import frechet_distance
from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.evidence.signing import load_signing_key, sign
from erasediff.export.onnx import export_denoiser
from erasediff.export.solvers import solver_table
from erasediff.files import sha256_file
from erasediff.models.family import Model
from erasediff.records.base import Pointer
from erasediff.records.config import SamplerConfig, SchedulerName
from erasediff.records.core import MANIFEST, SERVED, ServedModel, Verdict
from erasediff.records.settings import SigningSettings
from erasediff.serve.engine import Engine
from erasediff.serve.graph import OnnxGraph
from erasediff.serve.request import SamplingRequest
from erasediff.serve.solver import save_table

REFERENCE: tuple[SchedulerName, int] = ("ddim", 50)
CANDIDATES: tuple[SchedulerName, ...] = ("dpm-solver++", "unipc")
CALLS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)
BATCHES, CLIENTS, BATCH = (1, 8, 16), (1, 8, 32), 16
SAMPLES = 2000
LABEL = 3
EAGER, BARE, SERVER = "eager PyTorch", "onnxruntime, no HTTP", "server"


@dataclass(frozen=True)
class Solver:
    """A solver, its number of denoiser calls, and what its images are worth."""

    name: SchedulerName
    steps: int
    distance: float

    @property
    def title(self) -> str:
        """As in the manifest."""
        return f"{self.name}-{self.steps}"


def pipeline_with(ready: Prepared, name: SchedulerName) -> Model:
    """The base with another solver, in eager PyTorch."""
    return ready.base.sampled_by(SamplerConfig(scheduler=name))


def export(ready: Prepared, folder: Path, solver: Solver) -> Engine:
    """A folder that a server takes by the public key in it, and its bare loop."""
    folder.mkdir(parents=True)
    export_denoiser(ready.base, folder / "model.onnx")
    table = solver_table(solver.name, solver.steps, ready.base.schedule)
    save_table(solver.title, table, folder / "solvers.npz")
    onnx, solvers = (Pointer(uri=name, sha256=sha256_file(folder / name)) for name in ("model.onnx", "solvers.npz"))
    served = ServedModel(
        dataset="digits",
        class_names=ready.real.class_names,
        forgotten=(),
        epoch=0,
        onnx=onnx,
        solvers=solvers,
        solver=solver.title,
        guidance_scale=1.0,
        weights_sha256=onnx.sha256,
        verdict=Verdict.PASS,
    )
    now = datetime.now(UTC).replace(microsecond=0)
    new_key(folder, None, now, None)
    key = load_signing_key(SigningSettings(key=str(folder / PRIVATE)), now)
    (folder / MANIFEST).write_bytes(sign(served, SERVED, key))
    graph = OnnxGraph(folder / "model.onnx")
    return Engine(graph, table, graph.state_shape, ready.real.classes)


def distance(ready: Prepared, name: SchedulerName, steps: int) -> float:
    """Fréchet distance of a solver's images to real ones that the base was not trained on, in the detector's features."""
    labels = ready.real.holdout_labels[torch.randint(len(ready.real.holdout_labels), (SAMPLES,), generator=torch.Generator().manual_seed(0))]
    made, sampler = [], pipeline_with(ready, name)
    for start in range(0, SAMPLES, 250):
        made.append(sampler(labels[start : start + 250], list(range(start, min(SAMPLES, start + 250))), steps))
    _, features = ready.detector.look(torch.cat(made))
    _, reference = ready.detector.look(ready.real.holdout)
    return frechet_distance(features, reference)


def compared(ready: Prepared) -> tuple[Solver, ...]:
    """The reference, the solver with the fewest calls whose images are at no greater distance, and the one that the gate measures by default."""
    shipped = SamplerConfig()
    return (*fewest_calls(ready), Solver(shipped.scheduler, shipped.steps, distance(ready, shipped.scheduler, shipped.steps)))


def fewest_calls(ready: Prepared) -> tuple[Solver, Solver]:
    """The reference, and the solver with the fewest calls that is as good."""
    reference = Solver(*REFERENCE, distance(ready, *REFERENCE))
    print(f"{reference.title}: FD {reference.distance:.4f}", flush=True)
    for steps in CALLS:
        for name in CANDIDATES:
            found = Solver(name, steps, distance(ready, name, steps))
            print(f"{found.title}: FD {found.distance:.4f}", flush=True)
            if found.distance <= reference.distance:
                return reference, found
    return reference, reference


Timed = Callable[[], list[float]]
"""Latencies in seconds of the requests of one turn; its whole time is measured outside."""


@dataclass(frozen=True)
class Setting:
    """Something that draws images, and how many in a turn."""

    name: str
    solver: Solver
    batch: int
    clients: int
    images: int
    turn: Timed


def eager(ready: Prepared, solver: Solver, batch: int) -> Setting:
    """Eager PyTorch, the way the model was measured."""
    sampler, count = pipeline_with(ready, solver.name), 2

    def turn() -> list[float]:
        return [_seconds(lambda: sampler(torch.full((batch,), LABEL), list(range(batch)), solver.steps)) for _ in range(count)]

    return Setting(EAGER, solver, batch, 0, batch * count, turn)


def bare(engine: Engine, solver: Solver, batch: int) -> Setting:
    """The server's loop without the server."""
    count = max(4, 32 // batch) * (1 if solver.steps > 20 else 4)

    def turn() -> list[float]:
        return [_seconds(lambda: engine([SamplingRequest(LABEL, batch, 0, solver.title, 1.0)])) for _ in range(count)]

    return Setting(BARE, solver, batch, 0, batch * count, turn)


def served(client: Client, solver: Solver, clients: int) -> Setting:
    """Clients that each ask for one image, and then for the next."""
    each = max(4, 32 // clients) * (1 if solver.steps > 20 else 4)

    def turn() -> list[float]:
        return client.many(clients, each, LABEL)

    return Setting(SERVER, solver, BATCH, clients, clients * each, turn)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(settings: list[Setting], rounds: int) -> list[Row]:
    """Every setting has a turn in every round; figures are medians of rounds, latencies are of all requests."""
    speeds: dict[int, list[float]] = {i: [] for i in range(len(settings))}
    latencies: dict[int, list[float]] = {i: [] for i in range(len(settings))}
    for turn in range(rounds + 1):
        for i, setting in enumerate(settings):
            started = time.perf_counter()
            found = setting.turn()
            if turn:  # the first warms up
                speeds[i].append(setting.images / (time.perf_counter() - started))
                latencies[i] += found
        print(f"round {turn} of {rounds}", flush=True)

    def ratio(i: int, name: str, solver: str) -> float:
        """To a setting with as many images at once: the median over rounds."""
        size = min(settings[i].clients, BATCH) if settings[i].clients else settings[i].batch
        base = next(j for j, other in enumerate(settings) if (other.name, other.solver.title, other.batch) == (name, solver, size))
        return round(statistics.median(ours / theirs for ours, theirs in zip(speeds[i], speeds[base], strict=True)), 3)

    rows = []
    for i, setting in enumerate(settings):
        row = _row(setting, speeds[i], latencies[i]) | {"ratio_to_eager": ratio(i, EAGER, f"{REFERENCE[0]}-{REFERENCE[1]}")}
        rows.append(row if setting.name != SERVER else row | {"ratio_to_bare": ratio(i, BARE, setting.solver.title)})
    return rows


def _row(setting: Setting, speeds: list[float], latencies: list[float]) -> Row:
    return {
        "setting": setting.name,
        "solver": setting.solver.title,
        "fd": round(setting.solver.distance, 4),
        "batch": setting.batch,
        "clients": setting.clients,
        "images_per_s": round(statistics.median(speeds), 2),
        "p50_ms": round(1000 * float(np.quantile(latencies, 0.5)), 1),
        "p99_ms": round(1000 * float(np.quantile(latencies, 0.99)), 1),
        "requests": len(latencies),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    configure_process()
    torch.set_num_threads(1)
    ready = prepare(subject("digits"))
    solvers = compared(ready)
    settings = [eager(ready, solvers[0], batch) for batch in BATCHES]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erasediff-bench-")))
        for solver in dict.fromkeys(solvers):
            engine = export(ready, folder / solver.title, solver)
            client = stack.enter_context(serving(ROOT, folder / solver.title, "--max-batch", BATCH))
            settings += [bare(engine, solver, batch) for batch in BATCHES]
            settings += [served(client, solver, clients) for clients in CLIENTS]
        write_rows("serve", measure(settings, asked.rounds))


if __name__ == "__main__":
    main()
