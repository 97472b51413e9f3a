"""The lie: 'it passed', of a request that was tried until it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.tries import record_try, tries
from erasediff.attempts.workdir import Workdir
from erasediff.errors import EraseDiffError
from erasediff.files import sha256_bytes
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, PlanRecord, Verdict
from erasediff.records.policy import load_policy

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
KEY = bytes(32)


def attempt(workdir: Workdir, name: str, label: int = 8, verdict: Verdict | None = None, number: int = 1) -> Attempt:
    config = RunConfig()
    plan = PlanRecord(
        run=name,
        attempt=number,
        request=ErasureRequest(dataset="digits", label=str(label)),
        position=label,
        request_id="9" * 64,
        config_digest=config.digest(),
        policy_digest=POLICY.digest(),
        seed_commitment=sha256_bytes(KEY),
        mlflow_run_id="r",
    )
    run = workdir.open_attempt(plan, config, POLICY, KEY)
    if verdict is not None:
        record_try(run, "gate", verdict)
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


def test_an_attempt_that_was_opened_again_under_its_name_counts_all_the_same(tmp_path: Path) -> None:
    """Its folder shows the later plan alone."""
    workdir = Workdir.open(tmp_path)
    attempt(workdir, "this", verdict=Verdict.FAIL)
    assert tries(attempt(workdir, "this", number=2)) == 2
    assert tries(attempt(workdir, "this", number=1)) == 1, "control: it is the first one again"


def test_a_graph_that_fails_after_a_pass_is_a_try(tmp_path: Path) -> None:
    workdir = Workdir.open(tmp_path)
    record_try(attempt(workdir, "exported", verdict=Verdict.PASS), "export_onnx", Verdict.FAIL)
    assert tries(attempt(workdir, "again")) == 2


def test_a_step_that_says_it_again_is_one_try(tmp_path: Path) -> None:
    workdir = Workdir.open(tmp_path)
    for _ in range(3):
        record_try(attempt(workdir, "killed"), "gate", Verdict.FAIL)
    assert len(workdir.tries.read_bytes().splitlines()) == 1
    assert tries(attempt(workdir, "again")) == 2


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    """The lie: 'the first try', of whoever cut the list short."""
    workdir = Workdir.open(tmp_path)
    run = attempt(workdir, "first", verdict=Verdict.FAIL)
    workdir.tries.write_bytes(workdir.tries.read_bytes()[:-20])
    with pytest.raises(EraseDiffError):
        tries(run)
