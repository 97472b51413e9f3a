"""``python -m benchmarks.demo``: the demo at its default configuration, for every label at seed 0 and three labels at seeds 1 and 2.

The base does not depend on the label, so it is trained once a seed with ``erasediff train-base`` and its workdir is
copied for every label. Two runs go side by side; the seconds are therefore not those of an idle machine, for which see
``benchmarks.timing``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.results_file import Row, write_rows
from erasediff.attempts.workdir import Workdir
from erasediff.evaluate.gate import run_gate
from erasediff.records.core import BaseRecord, ExportedRecord, Outcome, VerdictRecord
from erasediff.records.measurements import Measurements
from erasediff.steps.gate import history_of

CASES = [(label, 0) for label in range(10)] + [(label, seed) for seed in (1, 2) for label in (0, 3, 8)]
ROOT = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).parent / "erasediff")


def _run(*arguments: object) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([COMMAND, *map(str, arguments)], env=environment, stdout=subprocess.DEVNULL, check=False).returncode


def train_base(folder: Path, seed: int) -> Path:
    """A workdir in which the base of this seed is champion."""
    workdir = folder / f"base-{seed}"
    if _run("train-base", "--config", ROOT / "params.yaml", "--workdir", workdir, "--seed", seed):
        raise SystemExit(f"the base of seed {seed} could not be trained")
    return workdir


def measure(folder: Path, base: Path, label: int, seed: int) -> Row:
    """One demo, as a row."""
    workdir = folder / f"{label}-{seed}"
    shutil.copytree(base, workdir)
    code = _run("demo", "--workdir", workdir, "--forget-label", label, "--seed", seed)
    outcome, run = Outcome.read(workdir / "outcome.json"), Workdir(workdir).attempt()
    measured, verdict = run.need(Measurements), run.need(VerdictRecord)
    exported = run.find(ExportedRecord)
    assert run_gate(run.policy(), measured, history_of(run, run.need(BaseRecord))).checks == verdict.checks
    assert measured.forget_base is not None
    checks = {check.id: check.bound for check in (*verdict.checks, *(exported.checks if exported else ()))}
    assert outcome.retain is not None
    row = {
        "label": label,
        "seed": seed,
        "verdict": outcome.verdict,
        "exit_code": code,
        "base_detections": measured.forget_base.detections,
        "detections": outcome.forget.detections,
        "upper": outcome.forget.upper,
        "onnx_detections": exported.forget_onnx.detections if exported and exported.forget_onnx else None,
        "accuracy_base": outcome.retain.accuracy_base,
        "accuracy_erased": outcome.retain.accuracy_erased,
        "accuracy_lower": outcome.retain.lower_bound,
        "class_lower": checks["R1.class"],
        "nearest_lower": checks["R1.nearest"],
        "fd_base": outcome.retain.fd_base,
        "fd_erased": outcome.retain.fd_erased,
        "fd_change_upper": outcome.retain.fd_change_upper,
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Measure every case."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        seeds = sorted({seed for _, seed in CASES})
        bases = dict(zip(seeds, pool.map(lambda seed: train_base(folder, seed), seeds), strict=True))
        rows = list(pool.map(lambda case: measure(folder, bases[case[1]], *case), CASES))
    write_rows("demo", rows)


if __name__ == "__main__":
    main()
