"""``python -m benchmarks.targets``: every forget target on every label at seed 0, the rest of the configuration alike.

The same steps as the demo up to the gate; nothing is exported or promoted, so every run starts from the same base.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.demo import train_base
from benchmarks.results_file import Row, write_rows
from erasediff.launch import shipped
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ErasureRequest, Measurements, VerdictRecord
from erasediff.records.policy import load_policy
from erasediff.records.workdir import Workdir
from erasediff.steps.check_prerequisites import check_prerequisites
from erasediff.steps.runner import perform

# visited_share 0: only noised forget images are relabelled, as in the paper.
VARIANTS: dict[str, dict[str, object]] = {
    "relabel": {"target": "relabel", "visited_share": 0.0},
    "anchor": {"target": "anchor", "visited_share": 0.0},
    "noise": {"target": "noise", "visited_share": 0.0},
    "mixture, no repulsion": {"target": "mixture", "repulsion": 0.0},
    "mixture": {"target": "mixture"},
}
STEPS = ("train_base", "version_forget_set", "erase", "evaluate", "gate")


def measure(base: Path, variant: str, label: int) -> Row:
    """One erasure with one target, as a row."""
    import torch

    torch.set_num_threads(1)
    folder = base.parent / f"{variant}-{label}".replace(", ", "-").replace(" ", "-")
    shutil.copytree(base, folder)
    default = RunConfig()
    sampler = default.sampler.model_copy(update={"workers": 1})
    config = RunConfig.model_validate(
        default.model_dump() | {"erase": default.erase.model_dump() | VARIANTS[variant], "sampler": sampler.model_dump()}
    )
    run = check_prerequisites(
        Workdir.open(folder), ErasureRequest(dataset="digits", label=label), config, load_policy(shipped("policies/class-conditional.yaml"))
    )
    for step in STEPS:
        perform(step, run)
    measured, verdict = run.need(Measurements, "evaluate"), run.need(VerdictRecord, "gate")
    assert measured.forget_erased is not None
    assert measured.frechet is not None
    n = sum(row.n for row in measured.retained)
    row: Row = {
        "target": variant,
        "label": label,
        "verdict": verdict.verdict,
        "failed": [check.id for check in verdict.checks if check.verdict != "PASS"],
        "detections": measured.forget_erased.detections,
        "accuracy_base": sum(r.correct_base for r in measured.retained) / n,
        "accuracy_erased": sum(r.correct_erased for r in measured.retained) / n,
        "fd_base": measured.frechet.fd_base,
        "fd_erased": measured.frechet.fd_erased,
    }
    print(row, flush=True)
    shutil.rmtree(folder)
    return row


def main() -> None:
    """Measure every target on every label."""
    cases = [(variant, label) for variant in VARIANTS for label in range(10)]
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2) as pool:
        base = train_base(Path(name), 0)
        rows = list(pool.map(measure, [base] * len(cases), *zip(*cases, strict=True)))
    write_rows("targets", rows)


if __name__ == "__main__":
    sys.exit(main())
