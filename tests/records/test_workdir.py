"""The lie: 'this step is done', for something else than was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasediff.attempts.attempt import KEY, Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput, IntegrityError
from erasediff.files import sha256_bytes
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest, PlanRecord, Verdict, VerdictRecord
from erasediff.records.policy import load_policy
from erasediff.steps.table import CHECKPOINT

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
SECRET = bytes(range(32))
REQUEST = ErasureRequest(dataset="digits", label="3")


def open_attempt(workdir: Workdir, attempt: int = 1) -> Attempt:
    config = RunConfig()
    plan = PlanRecord(
        run=f"{REQUEST.digest()[:16]}-{attempt}",
        attempt=attempt,
        request=REQUEST,
        position=3,
        request_id="9" * 64,
        config_digest=config.digest(),
        policy_digest=POLICY.digest(),
        seed_commitment=sha256_bytes(SECRET),
        mlflow_run_id="r",
    )
    return workdir.open_attempt(plan, config, POLICY, SECRET)


class Maker:
    """Makes verdicts and counts how many it had to make."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> VerdictRecord:
        self.made += 1
        numbers = {"attempt": self.made, "alpha": 0.05, "alpha_spent": 0.05, "policy_digest": "0" * 64, "evaluation_key": "0" * 64}
        return VerdictRecord(verdict=Verdict.FAIL, checks=(), **numbers)


def test_a_step_run_twice_is_done_once(tmp_path: Path) -> None:
    run, make = open_attempt(Workdir.open(tmp_path)), Maker()
    first = run.made(VerdictRecord, {"policy": "a"}, make)
    before = run.path(VerdictRecord).read_bytes()
    assert run.made(VerdictRecord, {"policy": "a"}, make) == first
    assert make.made == 1
    assert run.path(VerdictRecord).read_bytes() == before


@pytest.mark.parametrize("changed", [{"policy": "b"}, {}, {"policy": "a", "base": "c"}])
def test_a_record_made_from_something_else_is_made_again(tmp_path: Path, changed: dict[str, str]) -> None:
    run, make = open_attempt(Workdir.open(tmp_path)), Maker()
    run.made(VerdictRecord, {"policy": "a"}, make)
    again = run.made(VerdictRecord, changed, make)
    assert make.made == 2
    assert again == run.find(VerdictRecord)
    assert again.made_from == changed


def test_a_step_that_fails_leaves_the_record_it_found(tmp_path: Path) -> None:
    run = open_attempt(Workdir.open(tmp_path))
    old = run.made(VerdictRecord, {"policy": "a"}, Maker())

    def fail() -> VerdictRecord:
        raise BadInput("no.")

    with pytest.raises(BadInput):
        run.made(VerdictRecord, {"policy": "b"}, fail)
    assert run.find(VerdictRecord) == old


def test_a_missing_record_names_the_step_to_run(tmp_path: Path) -> None:
    run = open_attempt(Workdir.open(tmp_path))
    with pytest.raises(BadInput, match=r"has no verdict\.json: run `erasediff gate` first\.$"):
        run.need(VerdictRecord)


def test_a_record_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    run = open_attempt(Workdir.open(tmp_path))
    run.made(VerdictRecord, {}, Maker())
    path = run.path(VerdictRecord)
    path.write_text(path.read_text().replace('"FAIL"', '"PASSED"'))
    with pytest.raises(BadInput, match="field 'verdict'"):
        run.find(VerdictRecord)


def test_attempts_come_in_order_and_the_last_is_current(tmp_path: Path) -> None:
    workdir = Workdir.open(tmp_path)
    runs = [open_attempt(workdir, attempt) for attempt in (10, 2, 1)]
    assert [run.plan().attempt for run in workdir.attempts_at(REQUEST.digest())] == [1, 2, 10]
    assert workdir.attempt() == runs[-1]
    assert workdir.attempts_at("f" * 64) == []


def test_another_plan_under_the_same_name_gets_no_old_checkpoint(tmp_path: Path) -> None:
    workdir = Workdir.open(tmp_path)
    run = open_attempt(workdir)
    (run.folder / CHECKPOINT).write_bytes(b"of the old plan")
    open_attempt(workdir)
    assert not (run.folder / CHECKPOINT).exists()


@pytest.mark.parametrize("name", ["nothing", "..", "../x", "", "/etc"])
def test_a_run_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    workdir = Workdir.open(tmp_path / "w")
    (tmp_path / "w/plan.json").write_text("{}")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/plan.json").write_text("{}")
    if name != "..":
        with pytest.raises(BadInput, match="there is no run"):
            workdir.attempt(name)
    with pytest.raises(BadInput, match="no run was opened"):
        workdir.attempt()


def test_forget_images_do_not_outlive_their_step(tmp_path: Path) -> None:
    """Neither when the step ends, nor when it fails; and what a killed step left is removed first."""
    run = open_attempt(Workdir.open(tmp_path))
    left = run.folder / ".scratch/left.png"
    left.parent.mkdir()
    left.touch()

    def use(error: Exception | None) -> None:
        with run.scratch() as scratch:
            assert not left.exists()
            (scratch / "forget.png").touch()
            if error:
                raise error

    use(None)
    assert not (run.folder / ".scratch").exists()
    with pytest.raises(KeyError):
        use(KeyError("crash"))
    assert not (run.folder / ".scratch").exists()


def test_a_workdir_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path, read_only: Path) -> None:
    (tmp_path / "file").touch()
    for path in (read_only, read_only / "deeper", tmp_path / "file", tmp_path / "file/deeper", Path("/proc/erasediff")):
        with pytest.raises(BadInput, match=r"^[^\n]*\.$") as error:
            Workdir.open(path)
        assert str(path) in str(error.value)


def test_control_a_workdir_is_made_and_left_clean(tmp_path: Path) -> None:
    assert Workdir.open(tmp_path / "a/b").root == tmp_path / "a/b"
    assert list((tmp_path / "a/b").iterdir()) == []


def test_what_was_registered_before_the_erasure_cannot_be_changed_after_it(tmp_path: Path) -> None:
    """The gate's policy, the config and the key of the evaluation seeds, each against the digest in the plan."""
    run = open_attempt(Workdir.open(tmp_path))
    assert (run.policy(), run.config(), run.evaluation_key()) == (POLICY, RunConfig(), SECRET), "control"
    softer = POLICY.model_copy(update={"alpha": 0.1})
    softer.write(run.folder / "policy.json")
    RunConfig(seed=1).write(run.folder / "config.json")
    (run.folder / KEY).write_bytes(bytes(32))
    for read in (run.policy, run.config, run.evaluation_key):
        with pytest.raises(IntegrityError, match=r"is not the one it was opened with"):
            read()
    (run.folder / KEY).unlink()
    with pytest.raises(IntegrityError, match=KEY):
        run.evaluation_key()


def test_the_key_of_the_evaluation_seeds_is_for_the_owner_alone(tmp_path: Path) -> None:
    run = open_attempt(Workdir.open(tmp_path))
    assert (run.folder / KEY).stat().st_mode & 0o777 == 0o600
    assert (run.folder / "plan.json").stat().st_mode & 0o777 == 0o644, "control"
    assert SECRET.hex().encode() not in b"".join(p.read_bytes() for p in run.folder.glob("*.json")), "before the verdict"
