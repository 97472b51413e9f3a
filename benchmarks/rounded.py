"""``python -m benchmarks.rounded``: what is served of models that are known, by F8 and F8.int8: the exported graph, and it with weights of 8 bits.

The models are those of ``benchmarks.gate``. Every graph is exported, sampled by the server's own loop, and counted by the gate's detector.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gate import LABELS, MODELS, SEEDS, Trial, in_order
from benchmarks.judge import Judge
from benchmarks.kept import run_kept
from benchmarks.results_file import RESULTS, Row, write_rows
from benchmarks.subjects import prepare
from erasediff.environment import configure_process
from erasediff.export.onnx import OnnxDenoiser, export_denoiser, measure_parity, quantise
from erasediff.export.served import Served
from erasediff.export.solvers import solver_table
from erasediff.serve.graph import OnnxGraph

KEPT = RESULTS / "rounded.jsonl"
ASKED = ("base", "under-trained", "EraseDiff", "retrained")


@dataclass(frozen=True)
class Graphs:
    """A trial whose model is exported and not attacked."""

    trial: Trial

    @property
    def key(self) -> str:
        """See :class:`benchmarks.kept.Keyed`."""
        return f"rounded-{self.trial.key}"


def measure(asked: Graphs) -> Row:
    """Make the model, export it, round it, and count what each graph shows."""
    configure_process()
    torch.set_num_threads(1)
    trial = asked.trial
    ready = prepare(trial.subject)
    judge = Judge(ready, trial.label, trial.seed)
    return {**trial.row, **counted(judge, MODELS[trial.model][1](ready, trial.label, trial.seed))}


def counted(judge: Judge, unet: torch.nn.Module) -> Row:
    """Detections of the model, of its graph, and of that with weights of 8 bits, each of the policy's ``export.n``; and the graph's error."""
    pipeline, sampler, policy = judge.ready.base.with_network(unet), judge.exam.sampler, judge.exam.policy
    table = solver_table(sampler.scheduler, sampler.steps, pipeline.schedule)
    with tempfile.TemporaryDirectory() as folder:
        exported, rounded = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        export_denoiser(pipeline, exported)
        quantise(exported, rounded)
        parity = measure_parity(pipeline, OnnxDenoiser(exported))

        def count(path: Path, check: str) -> int:
            served = Served(OnnxGraph(path), table, pipeline.null_row, sampler)
            return served.count(judge.watch, policy.export.n, check, judge.exam.key, f"{check} of {path.stem}").detections

        return {
            "n": policy.export.n,
            "model_detections": round(judge.glance(unet, policy.export.n) * policy.export.n),
            "onnx_detections": count(exported, "F8"),
            "int8_detections": count(rounded, "F8.int8"),
            "max_relative_error": max(row.max_relative_error for row in parity),
            "bytes": [path.stat().st_size for path in (exported, rounded)],
        }


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", nargs="+", default=["digits"], choices=list(LABELS))
    parser.add_argument("--models", nargs="+", default=list(ASKED), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="models side by side, one thread each")
    asked = parser.parse_args(arguments)
    cases = [Graphs(Trial(dataset, model, seed)) for dataset in asked.subjects for seed in asked.seeds for model in asked.models]
    write_rows("rounded", in_order(run_kept(cases, measure, KEPT, asked.jobs)))


if __name__ == "__main__":
    main()
