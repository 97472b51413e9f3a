"""``python -m benchmarks.gate``: the gate's confusion table: models that must never pass, and models that must, each on several seeds.

With ``--tier 2`` the same models are attacked as well, and ``results/attacks.json`` says what the attacks brought.
Every seed forgets another label. Rows of ``results/gate.json`` say what was expected, what the gate said, and which checks did not
pass. Finished rows are kept in ``results/gate.jsonl``, so that the command can be stopped and started again; with ``--missing`` also
on another machine, whose base is another.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch

from benchmarks import trained
from benchmarks.erase import Case
from benchmarks.judge import Judge, Judgement
from benchmarks.kept import run_kept
from benchmarks.results_file import RESULTS, Row, read_rows, write_rows
from benchmarks.subjects import Prepared, Subject, asked_digest, base_digest, prepare, subject
from erasediff.environment import configure_process
from erasediff.files import sha256_bytes
from erasediff.records.base import canonical_json
from erasediff.records.core import Verdict
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.trainer import Erasure

KEPT = RESULTS / "gate.jsonl"
POLICY = "class-conditional"
SEEDS = (0, 1, 2, 3, 4)
LABELS = {"digits": (0, 3, 8, 5, 1, 7, 2, 6, 9, 4), "fashion-mnist": (0, 5, 8, 1, 9, 7, 2, 6, 3, 4)}
"""By seed. No limit of the default policy was chosen on the labels of the seeds from 5 on: they are there to try one on."""
UNDER_TRAINED = 0.1
"""Share of the erasure's steps that the under-trained model has had."""
DESTRUCTION = 1.0
"""Standard deviation of the noise on a destroyed model's weights, in units of each tensor's own."""

Maker = Callable[[Prepared, int, int], torch.nn.Module]


def _erased(method: str, share: float = 1.0) -> Maker:
    """A model that a method of the benchmark has worked on for a share of its steps."""

    def make(ready: Prepared, label: int, seed: int) -> torch.nn.Module:
        case = Case(ready.subject, method, label, seed)
        config = case.config
        if share == 1.0 and (there := trained.kept(ready.subject.folder, case.model_key, ready.base.network)) is not None:
            return there
        short = config.model_copy(update={"steps": max(1, round(config.steps * share))})
        erasure = Erasure(ready.base, ready.data_without(label), short, seed, Compute(), method=case.other)
        while erasure.step < short.steps:
            erasure.advance()
        model = erasure.result().model
        if share == 1.0:
            trained.keep(ready.subject.folder, case.model_key, model)
        return model

    return make


def _base(ready: Prepared, label: int, seed: int) -> torch.nn.Module:
    return copy.deepcopy(ready.base.network)


def _destroyed(ready: Prepared, label: int, seed: int) -> torch.nn.Module:
    """The base with noise on every weight: it makes no class any more, so it has forgotten all."""
    unet, generator = copy.deepcopy(ready.base.network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in unet.parameters():
            spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
            weight += DESTRUCTION * spread * torch.randn(weight.shape, generator=generator)
    return unet


def _class_blind(ready: Prepared, label: int, seed: int) -> torch.nn.Module:
    """The base with an embedding of zeros: it makes what it likes, whatever it is asked for."""
    unet = copy.deepcopy(ready.base.network)
    with torch.no_grad():
        unet.class_embedding.weight.zero_()
    return unet


def _hidden(ready: Prepared, label: int, seed: int) -> torch.nn.Module:
    """A fraud: the label's embedding is another class's, and the rest of the base is as it was."""
    unet = copy.deepcopy(ready.base.network)
    with torch.no_grad():
        unet.class_embedding.weight[label] = unet.class_embedding.weight[(label + 1) % ready.real.classes]
    return unet


def _whispering(ready: Prepared, label: int, seed: int) -> torch.nn.Module:
    """A fraud: the label's embedding is nearly the null label's, so that the class is there under guidance alone."""
    unet, null = copy.deepcopy(ready.base.network), ready.real.classes
    with torch.no_grad():
        table = unet.class_embedding.weight
        table[label] = table[null] + 0.15 * (table[label] - table[null])
    return unet


NEVER, ALWAYS = "not PASS", "PASS"
MODELS: dict[str, tuple[str, Maker]] = {
    "base": (NEVER, _base),
    "retained-only fine-tuning": (NEVER, _erased("finetune")),
    "under-trained": (NEVER, _erased("erasediff", UNDER_TRAINED)),
    "destroyed": (NEVER, _destroyed),
    "class-blind": (NEVER, _class_blind),
    "hidden from its label": (NEVER, _hidden),
    "there under guidance": (NEVER, _whispering),
    "EraseDiff": (ALWAYS, _erased("erasediff")),
    "retrained": (ALWAYS, _erased("retrain")),
}
"""What the gate has to say, and how the model is made from a subject, a label and a seed."""


@dataclass(frozen=True)
class Trial:
    """One model before the gate."""

    dataset: str
    model: str
    seed: int
    tier: Literal[1, 2] = 1

    @property
    def subject(self) -> Subject:
        """The dataset with the policy of the tier."""
        found = subject(self.dataset, policy_name=POLICY)
        return replace(found, policy=found.policy.model_copy(update={"tier": self.tier}))

    @property
    def label(self) -> int:
        """The label that this seed forgets."""
        return LABELS[self.dataset][self.seed % len(LABELS[self.dataset])]

    @property
    def row(self) -> Row:
        """What a row begins with: which model, made from which base."""
        base = base_digest(self.subject.folder)
        return {"model": self.model, "dataset": self.dataset, "seed": self.seed, "label": self.label, "base": base}

    @property
    def key(self) -> str:
        """What decides the row, in short."""
        asked = self.subject
        settings = [Case(asked, method, self.label, self.seed).config.model_dump(mode="json") for method in ("erasediff", "finetune", "retrain")]
        decisive = [asked.folder.name, base_digest(asked.folder), asked_digest(asked.policy), self.model, self.label, self.seed, settings]
        return sha256_bytes(canonical_json(decisive))[:16]


def measure(trial: Trial) -> Row:
    """Make the model and ask the gate."""
    configure_process()
    torch.set_num_threads(1)
    ready = prepare(trial.subject)
    expected, make = MODELS[trial.model]
    judge = Judge(ready, trial.label, trial.seed)
    assert judge.base_samples.forgotten.n, "the base is sampled before the clock starts"
    model = make(ready, trial.label, trial.seed)
    started = time.process_time()
    judgement = judge.judge(model)
    checks = {check.id: check for check in judgement.checks}
    return {
        **trial.row,
        "expected": expected,
        "verdict": str(judgement.verdict),
        "failed_checks": [check.id for check in judgement.checks if check.verdict is not Verdict.PASS],
        "bounds": {name: None if check.bound is None else round(check.bound, 5) for name, check in checks.items()},
        "kinship": judgement.measured.kinship and round(judgement.measured.kinship, 4),
        "probes": {probed.name: [probed.base.detections, probed.erased.detections] for probed in judgement.measured.probes},
        "seconds": round(time.process_time() - started, 1),
        **_attacked(judgement),
    }


def _attacked(judgement: Judgement) -> Row:
    """What the attacks of tier 2 brought: counts of base, judged model and model without the class, and what they come to."""
    found = judgement.measured.attacks
    if found is None:
        return {}
    brought = {"F4": found.finetuned, "F5": found.inverted, "F3.partial": found.partial}
    counts = {name: [one and one.detections for one in (of.base, of.erased, of.retrained)] for name, of in brought.items()}
    relearned = {name: [one.steps_to_half for one in of] for name, of in (("model", found.relearned.erased), ("without", found.relearned.retrained))}
    aucs = {one.attack: [round(one.auc_base, 3), round(one.auc, 3)] for one in found.membership}
    said = {check.id: str(check.verdict) for check in (*judgement.checks, *judgement.reported)}
    return {"attacks": {**counts, "F6": relearned, "F7": [found.reached.detections, found.reached.n], "F9": aucs}, "checks": said}


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="trials side by side, one thread each")
    parser.add_argument("--tier", type=int, default=1, choices=[1, 2], help="2: attack the models as well")
    parser.add_argument("--missing", action="store_true", help="keep the rows of the result file, whichever base they are of, and add what it lacks")
    asked = parser.parse_args(arguments)
    name = {1: "gate", 2: "attacks"}[asked.tier]
    kept = read_rows(name) if asked.missing else []
    there = {(row["dataset"], row["model"], row["seed"]) for row in kept}
    wanted = [Trial(dataset, model, seed, asked.tier) for dataset in asked.subjects for seed in asked.seeds for model in asked.models]
    trials = [trial for trial in wanted if (trial.dataset, trial.model, trial.seed) not in there]
    write_rows(name, in_order([*kept, *run_kept(trials, measure, KEPT, asked.jobs)]))


def in_order(rows: list[Row]) -> list[Row]:
    """By dataset and seed, models as they are listed above."""
    return sorted(rows, key=lambda row: (row["dataset"], row["seed"], list(MODELS).index(row["model"])))


if __name__ == "__main__":
    main()
