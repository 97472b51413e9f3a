"""The lie: 'it passed', of a request that was tried until it did."""

from __future__ import annotations

from pathlib import Path

from erasediff.files import sha256_bytes
from erasediff.records.config import RunConfig
from erasediff.records.nouns import ErasureRequest, PlanRecord, Verdict, VerdictRecord
from erasediff.records.policy import load_policy
from erasediff.records.workdir import Run, Workdir
from erasediff.steps.gate import tries

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
KEY = bytes(32)


def attempt(workdir: Workdir, name: str, label: int = 8, verdict: Verdict | None = None) -> Run:
    config = RunConfig()
    plan = PlanRecord(
        run=name,
        attempt=1,
        request=ErasureRequest(dataset="digits", label=label),
        config_digest=config.digest(),
        policy_digest=POLICY.digest(),
        seed_commitment=sha256_bytes(KEY),
        mlflow_run_id="r",
    )
    run = workdir.open_run(plan, config, POLICY, KEY)
    if verdict is not None:
        numbers = {"attempt": 1, "alpha": 0.05, "alpha_spent": 0.05, "policy_digest": POLICY.digest(), "evaluation_key": KEY.hex()}
        VerdictRecord(verdict=verdict, checks=(), **numbers).write(run.path(VerdictRecord))
    return run


def test_every_verdict_against_the_request_counts_whatever_its_run_was_named(tmp_path: Path) -> None:
    """Another --run is no clean slate."""
    workdir = Workdir.open(tmp_path)
    assert tries(attempt(workdir, "first")) == 1
    attempt(workdir, "monday", verdict=Verdict.FAIL)
    attempt(workdir, "laptop", verdict=Verdict.INCONCLUSIVE)
    assert tries(attempt(workdir, "again")) == 3


def test_what_is_no_try_at_this_request_does_not_count(tmp_path: Path) -> None:
    """Another request, one that passed, one that crashed before the gate, and the run itself when it is judged again."""
    workdir = Workdir.open(tmp_path)
    attempt(workdir, "other", label=3, verdict=Verdict.FAIL)
    attempt(workdir, "passed", verdict=Verdict.PASS)
    attempt(workdir, "crashed")
    assert tries(attempt(workdir, "this", verdict=Verdict.FAIL)) == 1
