"""The lies: 'it was promoted', of a version that never served; 'we rolled back', to one that knows what was forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput, IntegrityError
from erasediff.export.solvers import solver_table
from erasediff.files import sha256_file
from erasediff.models.process import squared_cosine
from erasediff.records.base import Pointer
from erasediff.records.core import (
    MANIFEST,
    ErasureRequest,
    ExportedRecord,
    ModelRecord,
    PlanRecord,
    RegisteredRecord,
    RollOutRecord,
    ServedModel,
    Verdict,
)
from erasediff.records.serving import ServingRules
from erasediff.records.settings import RollOutSettings
from erasediff.serve.solver import save_table
from erasediff.steps.promote import read_promotions
from erasediff.steps.roll_out import check_rolled_out, roll_out
from erasediff.steps.rollback import choose, rollback
from erasediff.tracking import CHAMPION, Tracking, model_tags
from tests.digits import DIGITS
from tests.exported import SOLVER, describe

DIGEST = "0" * 64
REGISTERED = RegisteredRecord(name="digits", version="2", weights_sha256=DIGEST, onnx_sha256=DIGEST, source="somewhere")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """An attempt that has come as far as a registered version."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    request = ErasureRequest(dataset="digits", label="8")
    plan = PlanRecord(
        run="one",
        attempt=1,
        request=request,
        position=8,
        request_id=DIGEST,
        config_digest=DIGEST,
        policy_digest=DIGEST,
        seed_commitment=DIGEST,
        mlflow_run_id="x",
    )
    workdir = Workdir.open(tmp_path / "work")
    plan.write(workdir.runs / "one" / "plan.json")
    opened = workdir.attempt("one")
    REGISTERED.write(opened.path(RegisteredRecord))
    return opened


def configure(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in {"BACKEND": "deployment", "IMAGE": "serve:1", "PUBLISH_TO": "s3://models", **variables}.items():
        monkeypatch.setenv(f"ERASEDIFF_ROLL_OUT_{name}", value)


def test_without_a_roll_out_the_record_says_so_and_promotion_goes_on(run: Attempt) -> None:
    with pytest.raises(BadInput, match="roll-out"):
        check_rolled_out(run, REGISTERED)
    record = roll_out(run)
    assert (record.backend, record.outcome, record.reason) == ("none", "none", "no roll-out is configured")
    assert roll_out(run) == record
    assert check_rolled_out(run, REGISTERED) == record


def test_where_one_is_configured_no_promotion_goes_without_it(run: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not by a record of the time before it was configured."""
    record = roll_out(run)
    configure(monkeypatch)
    with pytest.raises(BadInput, match="was not rolled out by backend deployment"):
        check_rolled_out(run, REGISTERED)
    good = record.model_copy(update={"backend": "deployment", "outcome": "promoted", "uri": "s3://models/a", "revision": "1"})
    good.write(run.path(RollOutRecord))
    assert check_rolled_out(run, REGISTERED) == good
    for bad in (
        {"outcome": "rolled back"},
        {"outcome": "none"},
        {"backend": "kserve"},
        {"made_from": {"registered": "1" * 64}},
    ):
        good.model_copy(update=bad).write(run.path(RollOutRecord))
        with pytest.raises(BadInput, match="run `erasediff roll-out` first"):
            check_rolled_out(run, REGISTERED)


def test_a_roll_out_that_was_rolled_back_is_not_forgotten_when_the_setting_is_taken_away(run: Attempt) -> None:
    record = roll_out(run).model_copy(update={"outcome": "rolled back"})
    record.write(run.path(RollOutRecord))
    with pytest.raises(BadInput, match="rolled back"):
        check_rolled_out(run, REGISTERED)


def exported_into(run: Attempt) -> ServedModel:
    """A folder as the export step leaves it, with its record."""
    folder = run.folder / "onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"another graph")
    (folder / "solvers.npz").write_bytes(b"tables")
    model = describe(folder)
    ExportedRecord(
        onnx=model.onnx, solvers=model.solvers, solver=SOLVER, weights_sha256=DIGEST, parity=(), forget_onnx=None, verdict=Verdict.PASS, checks=()
    ).write(run.path(ExportedRecord))
    return model


def test_another_graph_than_the_registered_one_is_not_rolled_out(run: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, KUBECONFIG="")
    exported_into(run)
    with pytest.raises(IntegrityError, match="not hold the graph that was registered"):
        roll_out(run)
    assert run.find(RollOutRecord) is None


def test_what_serves_is_rolled_out_again_with_a_manifest_that_was_signed_anew(run: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: by the manifest of its record it is done. An unsigned one is not published."""
    configure(monkeypatch)
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    model, path = exported_into(run), run.folder / "onnx" / MANIFEST
    registered = REGISTERED.model_copy(update={"onnx_sha256": model.onnx.sha256})
    registered.write(run.path(RegisteredRecord))
    made_from = {"registered": registered.digest(), "settings": RollOutSettings.load().digest(), "manifest": sha256_file(path)}
    done = RollOutRecord(
        made_from=made_from, backend="deployment", uri="s3://models/a", onnx_sha256=model.onnx.sha256, revision="1", outcome="promoted"
    )
    done.write(run.path(RollOutRecord))
    assert roll_out(run) == done, "control"
    model.write(path)
    with pytest.raises(BadInput, match="run `erasediff migrate`"):
        roll_out(run)
    describe(path.parent)
    with pytest.raises(BadInput, match="no cluster is configured"):
        roll_out(run)


@pytest.mark.parametrize(
    ("kubeconfig", "sentence"),
    [("/nonexistent", "no cluster is configured"), ("refused", "does not answer")],
)
def test_a_cluster_that_is_not_there_ends_in_one_sentence(
    run: Attempt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kubeconfig: str, sentence: str
) -> None:
    from erasediff.cluster.api import Cluster

    path = tmp_path / "kubeconfig"
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "users: [{name: a, user: {token: secret-token}}]\nclusters: [{name: a, cluster: {server: 'https://127.0.0.1:9'}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(path) if kubeconfig == "refused" else kubeconfig)
    with pytest.raises(BadInput, match=sentence) as refused, Cluster.connected("erasediff"):
        pass
    assert "\n" not in str(refused.value)
    assert "secret-token" not in str(refused.value)


class Registry:
    """Versions of a model in a real MLflow on SQLite, with real artifacts."""

    def __init__(self, root: Path) -> None:
        self.workdir = Workdir.open(root)
        self.tracking = Tracking(root)

    def add(self, folder: Path, epoch: int, verdict: str = "PASS", **tags: str) -> str:
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(f"graph {folder}".encode())
        save_table(SOLVER, solver_table("ddim", 2, squared_cosine(1000)), folder / "solvers.npz")
        weights = f"{len(str(folder)):02x}" * 32
        served = describe(folder, epoch=epoch, weights_sha256=weights)
        run_id = self.tracking.start_run("a run", {})
        self.tracking.log_artifacts(run_id, folder, "onnx")
        model = ModelRecord(dataset="digits", class_names=DIGITS, epoch=epoch, weights=Pointer(uri="w", sha256=weights), folder_sha256=DIGEST)
        known = {
            "erasediff.onnx_sha256": served.onnx.sha256,
            "erasediff.verdict": verdict,
            "erasediff.record.verdict": DIGEST,
            "erasediff.forget_set_version": "a.dir",
        }
        return self.tracking.register("digits", str(folder), run_id, model_tags(model) | known | tags)

    def champion(self) -> str:
        return str(self.tracking.alias("digits", CHAMPION).version)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Registry(tmp_path / "work")


def test_a_roll_back_goes_to_the_newest_admissible_version_and_is_written_down(registry: Registry, tmp_path: Path) -> None:
    registry.add(tmp_path / "old", epoch=0)
    same = registry.add(tmp_path / "same epoch", epoch=1)
    registry.add(tmp_path / "not passed, though", epoch=1, verdict="FAIL")
    champion = registry.add(tmp_path / "c", epoch=1)
    registry.tracking.set_alias("digits", CHAMPION, champion)
    went = rollback(registry.workdir, "digits")
    assert (went.version, went.previous, registry.champion()) == (same, champion, same)
    assert [(p.version, p.previous_version) for p in read_promotions(registry.workdir)] == [(same, champion)]


def test_nothing_that_a_promoted_erasure_forgot_comes_back(registry: Registry, tmp_path: Path) -> None:
    registry.add(tmp_path / "old", epoch=1)
    champion = registry.add(tmp_path / "new", epoch=2)
    registry.tracking.set_alias("digits", CHAMPION, champion)
    with pytest.raises(BadInput, match="version 1 is of epoch 1, below 2") as refused:
        rollback(registry.workdir, "digits")
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="of epoch 1, below 2"):
        rollback(registry.workdir, "digits", version="1")
    assert registry.champion() == champion
    assert not read_promotions(registry.workdir)


def test_what_was_revoked_is_no_way_back(registry: Registry, tmp_path: Path) -> None:
    first, second = registry.add(tmp_path / "one", epoch=1), registry.add(tmp_path / "two2", epoch=1)
    champion = registry.add(tmp_path / "three", epoch=1)
    registry.tracking.set_alias("digits", CHAMPION, champion)
    versions, at = registry.tracking.versions("digits"), registry.tracking.alias("digits", CHAMPION)
    assert choose(versions, at, ServingRules(), None).number == second, "control"
    revoked = next(v.tags["erasediff.onnx_sha256"] for v in versions if str(v.version) == second)
    assert choose(versions, at, ServingRules(revoked=(revoked,)), None).number == first
    with pytest.raises(BadInput, match="has been revoked"):
        choose(versions, at, ServingRules(revoked=(revoked,)), second)
    with pytest.raises(BadInput, match="below 2"):
        choose(versions, at, ServingRules(minimum_epoch=2), None)


def test_an_artifact_that_was_exchanged_is_no_way_back(registry: Registry, tmp_path: Path) -> None:
    registry.add(tmp_path / "one", epoch=1, **{"erasediff.onnx_sha256": "5" * 64})
    champion = registry.add(tmp_path / "two2", epoch=1)
    registry.tracking.set_alias("digits", CHAMPION, champion)
    with pytest.raises(IntegrityError, match="does not match its tags"):
        rollback(registry.workdir, "digits")
    assert registry.champion() == champion


def test_without_a_champion_there_is_nothing_to_go_back_from(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no champion"):
        rollback(registry.workdir, "digits")


def test_versions_that_somebody_else_registered_are_none(registry: Registry, tmp_path: Path) -> None:
    champion = registry.add(tmp_path / "one", epoch=1)
    registry.tracking.set_alias("digits", CHAMPION, champion)
    others: list[Any] = [
        type("Version", (), {"version": "9", "tags": tags})() for tags in ({}, {"erasediff.model": "x"}, {"erasediff.verdict": "PASS"})
    ]
    with pytest.raises(BadInput, match="was not registered by a gate"):
        choose(others, registry.tracking.alias("digits", CHAMPION), ServingRules(), None)
