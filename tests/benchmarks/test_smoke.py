"""A short smoke of the long benchmark: every method through the real measuring code, on a small base of real digits."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks import base, erase, gate, judging, rates, relearn, rounded, step, subjects, tables, trained
from benchmarks.judge import Judge
from benchmarks.kept import finished, run_kept
from benchmarks.results_file import Row, read_rows
from erasediff.records.config import BaseTrainingConfig, DenoiserConfig, DetectorConfig, EraseConfig, RunConfig, SamplerConfig
from erasediff.records.policy import load_policy
from erasediff.unlearn.methods import METHODS

COLUMNS = {"method", "dataset", "label", "seed", "ua", "detections_upper", "retained_drop", "fd_change", "forwards", "backwards"}
COLUMNS |= {"seconds", "seconds_to_gate", "peak_rss_mb", "s50"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> subjects.Subject:
    """Digits with little of everything, and the base that `benchmarks.base` trains for it."""
    config = RunConfig(
        denoiser=DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4),
        base_training=BaseTrainingConfig(steps=150, batch_size=64),
        sampler=SamplerConfig(steps=4),
        detector=DetectorConfig(steps=150),
        erase=EraseConfig(steps=10, batch_size=16, learning_rate=2e-3),
    )
    policy = load_policy(Path(__file__).parents[1] / "e2e/quick/policy.yaml")
    little = {"inversion": policy.attacks.inversion.model_copy(update={"steps": 10}), "n": 20}
    policy = policy.model_copy(update={"attacks": policy.attacks.model_copy(update=little)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "BUILD", tmp_path_factory.mktemp("bench"))
        patch.setattr(relearn, "LOOKS", (1, 2))
        asked = subjects.Subject("digits", config, policy, (3,))
        row = base.measure(asked, base.train(asked))
        assert row["detector_accuracy"] > 0.5
        yield asked


def test_every_method_has_settings_of_its_own(small: subjects.Subject) -> None:
    """tests/unlearn/test_methods.py takes steps with each of them."""
    keys = {method: erase.Case(small, method, 3, 0).model_key for method in erase.METHODS}
    assert len(set(keys.values())) == len(erase.METHODS)
    assert {erase.Case(small, method, 3, 0).config.method for method in erase.METHODS} == set(METHODS)


@pytest.mark.parametrize("method", ["erasediff", pytest.param("retrain", marks=pytest.mark.thorough)])
def test_a_case_gives_a_row(small: subjects.Subject, method: str) -> None:
    row = erase.measure(erase.Case(small, method, 3, 0))
    assert set(row) >= COLUMNS
    assert (row["method"], row["label"], row["seed"]) == (method, 3, 0)
    assert 0 <= row["ua"] <= 1
    assert row["backwards"] > 0
    assert (row["backwards"] == 4 * row["steps"]) == (method == "released"), "two passes a step and one each of two inner steps"
    assert row["seconds"] > 0
    json.dumps(row)


def test_the_stopwatch_times_every_set_of_samples_and_nothing_else(small: subjects.Subject) -> None:
    judge, started = Judge(subjects.prepare(small), 3, 0), time.perf_counter()
    with judging.stopwatch() as taken:
        judge.judge(judge.ready.base.network)
    assert len(taken) > len(small.policy.probes.ask)
    assert 0 < sum(taken) < time.perf_counter() - started
    before = len(taken)
    judge.judge(judge.ready.base.network)
    assert len(taken) == before, "control: it is off again"


@pytest.mark.thorough
def test_every_model_can_be_made_and_a_model_is_asked_everything(small: subjects.Subject) -> None:
    """What the gate says of so small a base means nothing; that it asks everything does. All but the base have other weights than it."""
    ready = subjects.prepare(small)
    base = ready.base.network.state_dict()
    made = {name: make(ready, 3, 0) for name, (_, make) in gate.MODELS.items()}
    alike = {name for name, model in made.items() if all(torch.equal(base[key], value) for key, value in model.state_dict().items())}
    assert alike == {"base"}
    judge = Judge(ready, 3, 0)
    judgement = judge.judge(made["hidden from its label"])
    assert {probed.name for probed in judgement.measured.probes} == set(small.policy.probes.ask)
    assert {"C0.reference", "F1", "F2", "F3", "R1", "R2", "R2.kernel", "R3.recall"} <= {check.id for check in judgement.checks}
    rate = judge.base_rate
    assert judge.compare(ready.base.network).measured.forget_erased.detections == round(rate * small.policy.forget.n)


@pytest.mark.thorough
def test_a_trial_of_tier_2_says_what_the_attacks_brought_and_fits_its_table(small: subjects.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "subject", lambda name, policy_name: small)
    monkeypatch.setattr(gate, "LABELS", {"digits": (3,)})
    row = gate.measure(gate.Trial("digits", "hidden from its label", 0, tier=2)) | {"commit": "c", "cores": 2, "date": "today"}
    assert set(row["attacks"]) == {"F4", "F5", "F3.partial", "F6", "F7", "F9"}
    assert "| digits | hidden from its label | 3, 0 |" in tables.attacks_table([row])
    assert gate.Trial("digits", "base", 0, tier=2).key != gate.Trial("digits", "base", 0).key
    assert "attacks" not in gate.measure(gate.Trial("digits", "hidden from its label", 0)), "control: tier 1 attacks nothing"


@pytest.mark.thorough
def test_a_graph_and_the_rounded_one_are_counted_and_fit_their_table(small: subjects.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "subject", lambda name, policy_name: small)
    monkeypatch.setattr(gate, "LABELS", {"digits": (3,)})
    row = rounded.measure(rounded.Graphs(gate.Trial("digits", "base", 0))) | {"commit": "c", "cores": 2, "date": "today"}
    assert 0 < row["max_relative_error"] < small.policy.export.max_relative_error
    assert row["bytes"][1] < row["bytes"][0], "control: it was rounded"
    assert "| digits | base |" in tables.rounded_table([row])


def kept_of(case: erase.Case, ready: subjects.Prepared) -> torch.nn.Module | None:
    return trained.kept(case.subject.folder, case.model_key, ready.base.network)


def test_a_model_of_the_comparison_is_the_one_before_the_gate(small: subjects.Subject) -> None:
    """The lie: 'the same method', of a model that was trained otherwise."""
    ready, case = subjects.prepare(small), erase.Case(small, "finetune", 3, 5)
    made = gate.MODELS["retained-only fine-tuning"][1](ready, 3, 5)
    there = kept_of(case, ready)
    assert there is not None
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), there.state_dict().values(), strict=True))
    assert kept_of(erase.Case(small, "finetune", 3, 6), ready) is None, "control: another seed is another model"
    under = gate.MODELS["under-trained"][1](ready, 3, 5)
    assert kept_of(erase.Case(small, "erasediff", 3, 5), ready) is None, "nor is one that was stopped early kept"
    assert under is not None


def test_rows_are_kept_and_not_measured_again(small: subjects.Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [erase.Case(small, "finetune", 3, seed) for seed in (0, 1)]
    kept = tmp_path / "rows.jsonl"
    kept.write_text("".join(json.dumps({"key": case.key, "row": {"seed": case.seed}}) + "\n" for case in cases))
    assert run_kept(cases, erase.measure, kept, 1) == [{"seed": 0}, {"seed": 1}]
    other = erase.Case(small, "munba", 3, 0)
    assert other.key not in finished(kept), "control: another method is another row"
    monkeypatch.setattr(erase, "base_digest", lambda folder: "another")
    assert cases[0].key not in finished(kept), "control: and another base"


@pytest.mark.parametrize(("target", "forwards", "backwards"), [("relabel", 3, 2), ("noise", 2, 2), (step.RELEASED, 7, 4)])
def test_the_step_benchmark_counts_the_passes_of_the_facts(monkeypatch: pytest.MonkeyPatch, target: str, forwards: int, backwards: int) -> None:
    monkeypatch.setattr(step, "PAIRS", 2)
    row = step.measure(target)
    assert (row["forwards"], row["backwards"]) == (forwards, backwards)
    assert 0.5 < row["step_over_floor"] < 3


def test_the_benchmark_takes_the_rates_that_did_best() -> None:
    assert rates.best(read_rows("rates")) == erase.RATES
    asked = erase.Case(subjects.subject("digits"), "siss", 8, 0)
    assert asked.config.learning_rate == erase.RATES["digits"]["siss"]
    assert erase.Case(subjects.subject("digits"), "siss", 8, 0, (("learning_rate", 1.0),)).config.learning_rate == 1, "control: what is tried wins"


def test_the_best_rate_fails_least_then_is_soonest_then_forgets_most() -> None:
    def row(rate: float, failed: list[str], seconds: float | None, ua: float) -> Row:
        verdict = "FAIL" if failed else "PASS"
        return {
            "dataset": "d",
            "method": "m",
            "learning_rate": rate,
            "failed": failed,
            "seconds_to_gate": seconds,
            "ua": ua,
            "verdict": verdict,
            "fd_change": 0,
        }

    rows = [row(1, ["F1"], None, 0.9), row(2, [], 20.0, 1.0), row(3, [], 10.0, 0.99), row(4, ["F1", "R2"], 5.0, 1.0)]
    rows.append({"dataset": "d", "method": "m", "learning_rate": 5, "verdict": "diverged"})
    assert rates.best(rows) == {"d": {"m": 3}}
    assert rates.best([r for r in rows if r["learning_rate"] != 3]) == {"d": {"m": 2}}
    assert rates.best([row(1, ["F1"], None, 0.9), row(2, ["F1"], None, 0.95)]) == {"d": {"m": 2}}
