"""``python -m benchmarks.erase``: every method from one base, on digits and on Fashion-MNIST; three labels, three seeds.

All methods have the same base, images, batch size, detector, policy and evaluation seeds. At some of its steps (``LOOKS``) a
run is glanced at, and where the glance is promising it is judged by the whole policy: the seconds of training until the first
PASS are ``seconds_to_gate``; looking does not count. Seconds are those of the one thread's CPU, which on an idle core are wall
seconds, so that what else the machine does counts for no method. Finished runs are kept in ``results/runs.jsonl``, so the command can be stopped
and started again, on another machine too; a run whose settings change is a run of its own.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from benchmarks import released, trained
from benchmarks.judge import Judge, Judgement
from benchmarks.kept import finished, run_kept
from benchmarks.relearn import steps_to_half
from benchmarks.results_file import RESULTS, Row, write_rows
from benchmarks.subjects import Subject, base_digest, prepare, subject
from erasediff.environment import configure_process
from erasediff.errors import NonFinite
from erasediff.files import sha256_bytes
from erasediff.records.base import canonical_json
from erasediff.records.config import EraseConfig
from erasediff.records.core import Verdict
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.methods import Method
from erasediff.unlearn.trainer import Erasure

LOOKS = (1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 3 / 4)
"""Shares of the steps after which a run is looked at: closer together where the fast methods pass."""
GLANCE, PROMISING = 200, 0.05
KEPT = RESULTS / "runs.jsonl"
SEEDS = (0, 1, 2)
_OWN: dict[str, object] = {"visited_share": 0.0, "target": "relabel", "repulsion": 0.0, "starting_point_decay": 0.0}
METHODS: dict[str, dict[str, object]] = {
    "erasediff": {},
    "released": released.SETTINGS,
    "finetune": _OWN,
    "neggrad": _OWN | {"eta": 0.05},
    "salun": _OWN | {"balance": 1.0},
    "sfron": _OWN,
    "munba": _OWN,
    "siss": _OWN,
    "sa": _OWN | {"target": "noise"},
    "retrain": _OWN,
}
"""Each method's own settings; the rest is the subject's ``erase`` section. EraseDiff is run at the subject's settings as they are."""
RATES: dict[str, dict[str, float]] = {
    "digits": {
        "finetune": 1e-3,
        "neggrad": 2e-4,
        "salun": 2e-3,
        "sfron": 2e-4,
        "munba": 1e-3,
        "siss": 1e-3,
        "sa": 2e-3,
        "released": 5e-4,
    },
    "fashion-mnist": {
        "finetune": 2e-3,
        "neggrad": 5e-4,
        "salun": 2e-3,
        "sfron": 2e-3,
        "munba": 5e-4,
        "siss": 5e-4,
        "sa": 5e-4,
        "released": 2e-3,
    },
}
"""The rivals' learning rates, by dataset: those that did best in ``results/rates.json`` (``benchmarks.rates``)."""


_JUDGED_BY = {"control": ("min_detected", "min_true_positive_rate"), "fidelity": ("max_relative_upper", "resamples")}


@dataclass(frozen=True)
class Case:
    """One run of the benchmark."""

    subject: Subject
    method: str
    label: int
    seed: int
    tried: tuple[tuple[str, Any], ...] = ()

    @property
    def config(self) -> EraseConfig:
        """The subject's settings with the method's own on top; ``retrain`` has the base's budget."""
        name = "erasediff" if self.method == "released" else self.method
        settings = self.subject.config.erase.model_dump() | METHODS[self.method] | {"method": name}
        if rate := RATES.get(self.subject.name, {}).get(self.method):
            settings |= {"learning_rate": rate}
        if self.method == "retrain" and (base := self.subject.config.base_training):
            settings |= {"steps": base.steps, "batch_size": base.batch_size, "learning_rate": base.learning_rate}
            settings |= {"decay_fraction": base.decay_fraction, "ema_decay": base.ema_decay, "label_dropout": base.label_dropout}
        return EraseConfig.model_validate(settings | dict(self.tried))

    @property
    def other(self) -> type[Method] | None:
        """The method, where it is none that the package has."""
        return released.Released if self.method == "released" else None

    @property
    def model_key(self) -> str:
        """What decides the model, in short: not how it is judged."""
        decisive = [base_digest(self.subject.folder), self.method, self.label, self.seed, self.config.model_dump(mode="json")]
        return sha256_bytes(canonical_json(decisive))[:16]

    @property
    def key(self) -> str:
        """What decides the row, in short."""
        settings = self.config.model_dump(mode="json")
        policy = self.subject.policy.model_dump(mode="json")
        judged_by = [policy["alpha"], policy["forget"], policy["retain"]]  # of what Judge.compare asks
        judged_by += [[policy[part][name] for name in names] for part, names in _JUDGED_BY.items()]
        decisive = [self.subject.folder.name, base_digest(self.subject.folder), judged_by, self.method, self.label, self.seed, settings]
        return sha256_bytes(canonical_json(decisive))[:16]


@dataclass
class Clock:
    """CPU seconds of training, apart from those of looking."""

    seconds: float = 0.0

    def advance(self, erasure: Erasure) -> None:
        """Take one step."""
        started = time.process_time()
        erasure.advance()
        self.seconds += time.process_time() - started


def measure(case: Case) -> Row:
    """Run one case in this process."""
    configure_process()
    torch.set_num_threads(1)
    ready = prepare(case.subject)
    judge = Judge(ready, case.label, case.seed)
    row: Row = dict(case.tried) | {"method": case.method, "dataset": case.subject.name, "label": case.label, "seed": case.seed}
    started = time.process_time()
    erasure = Erasure(ready.base, ready.data_without(case.label), case.config, case.seed, Compute(), method=case.other)
    clock = Clock(time.process_time() - started)
    try:
        seconds_to_gate, judgement, peak = train(erasure, judge, clock)
    except NonFinite as error:
        return row | {"verdict": "diverged", "error": str(error), "seconds": round(clock.seconds, 1), "seconds_to_gate": None}
    cost: Row = {
        "forwards": erasure.passes.forward,
        "backwards": erasure.passes.backward,
        "steps": erasure.step,
        "seconds": round(clock.seconds, 1),
        "seconds_to_gate": seconds_to_gate,
        "peak_rss_mb": peak,
    }
    model = erasure.result().model
    trained.keep(case.subject.folder, case.model_key, model)
    return {**row, **measured(judgement), **cost, "s50": steps_to_half(model, judge)}


def train(erasure: Erasure, judge: Judge, clock: Clock) -> tuple[float | None, Judgement, int]:
    """Train to the end; the seconds of training to the first PASS, the judgement of the end, and the peak memory of training."""
    steps, passed, peak = erasure.config.steps, None, 0
    looks = {max(1, round(steps * share)) for share in LOOKS}
    while erasure.step < steps:
        clock.advance(erasure)
        if erasure.step == min(looks):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # before any sampling
        if passed is None and erasure.step in looks and promising(judge, erasure.weights()):
            passed = round(clock.seconds, 1) if judge.compare(erasure.weights()).verdict is Verdict.PASS else None
    judgement = judge.compare(erasure.weights())
    if passed is None and judgement.verdict is Verdict.PASS:
        passed = round(clock.seconds, 1)
    return passed, judgement, peak


def promising(judge: Judge, unet: torch.nn.Module) -> bool:
    """Whether so few samples of a glance are detected that the whole policy is worth its time."""
    return judge.glance(unet, GLANCE) - judge.watch.quality.false_positive_rate <= PROMISING


def measured(judgement: Judgement) -> Row:
    """The judgement as columns."""
    found, retained = judgement.measured.forget_erased, judgement.measured.retained
    assert found is not None
    frechet, rows = retained.frechet, retained.accuracy
    assert frechet is not None
    n = sum(row.n for row in rows)
    return {
        "verdict": str(judgement.verdict),
        "failed": [check.id for check in judgement.checks if check.verdict is not Verdict.PASS],
        "ua": round(1 - found.detections / found.n, 4),
        "detections_upper": judgement.bound("F1"),
        "retained_drop": round(sum(row.correct_base - row.correct_erased for row in rows) / n, 4),
        "fd_change": round(frechet.fd_erased / frechet.fd_base - 1, 4),
    }


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", nargs="+", default=["digits", "fashion-mnist"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--labels", nargs="+", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--size", type=int, help="side of the Fashion-MNIST images, 16 if unset")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="try other erase settings, on all methods asked for")
    parser.add_argument("--finished", action="store_true", help="run nothing: write the rows that are there")
    parser.add_argument("--name", default="erase", help="results/NAME.json")
    asked = parser.parse_args(arguments)
    subjects = [subject(name, asked.size if name != "digits" else None) for name in asked.subjects]
    tried = tuple((name, yaml.safe_load(value)) for name, value in (pair.split("=", 1) for pair in asked.set))
    cases = [
        Case(s, method, label, seed, tried)
        for s in subjects
        for method in asked.methods
        for seed in asked.seeds
        for label in asked.labels or s.labels
    ]
    rows = finished(KEPT)
    write_rows(asked.name, [rows[c.key] for c in cases if c.key in rows] if asked.finished else run_kept(cases, measure, KEPT, asked.jobs))


if __name__ == "__main__":
    main()
