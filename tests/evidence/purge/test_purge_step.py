"""The lies: 'it is gone', of what lies there still; 'purged', of a model that nothing replaced; 'it serves', of what was deleted too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.journal import read_kubeflow_runs, record_kubeflow_run
from erasediff.environment import KUBEFLOW_RUN
from erasediff.errors import BadInput, PurgeUnfinished
from erasediff.files import atomic_path, mark_in_use
from erasediff.records.config import PurgeConfig
from erasediff.records.core import ExportedRecord, PromotionRecord, RegisteredRecord, RollOutRecord, VerdictRecord
from erasediff.records.purging import PurgeRecord
from erasediff.steps.purge import preview, purge
from erasediff.steps.rollback import rollback
from erasediff.tracking import EPOCH_TAG
from tests.evidence.purge.world import LABEL, OTHER, World, holders, tree


def counts(record: PurgeRecord) -> dict[tuple[str, str, str], int]:
    return {(line.store, line.action, line.what): line.count for line in record.lines}


def test_the_canary_is_found_nowhere_and_the_champion_serves_on(world: World, tmp_path: Path) -> None:
    world.failed()
    run = world.promoted()
    before = holders(world.canary, world.workdir.root)
    for place in ("forget-remote/", "mlflow.db", "mlflow-artifacts/", "models/", "runs/winner/.scratch", "runs/winner/samples.npz", "runs/loser/"):
        assert any(name.startswith(place) for name in before), f"control: {place} holds it before"
    record = purge(run)
    assert holders(world.canary, world.workdir.root) == []
    assert record.complete
    assert not world.workdir.request_key(run.plan().request).exists()
    for kind in (VerdictRecord, ExportedRecord, RegisteredRecord, RollOutRecord, PromotionRecord):
        assert run.find(kind) is not None
    champion = world.tracking.resolve("models:/numbers@champion")
    assert str(champion.version) == run.need(RegisteredRecord).version
    assert (world.tracking.download(champion.source, tmp_path / "fetched") / "unet" / "weights").read_bytes() == b"erased winner"
    assert (run.folder / "onnx" / "model.onnx").is_file()
    assert (world.workdir.models / world.champion_model().weights.uri).is_dir()
    assert not [v for v in world.tracking.versions("numbers") if v.version != champion.version]


def test_every_store_has_a_line_with_counts_and_no_names(world: World) -> None:
    record = purge(world.promoted())
    assert {line.store for line in record.lines} == {
        *("workdir", "dvc remote", "dvc cache", "mlflow artifacts", "mlflow registry", "models"),
        *("pipeline artifacts", "published models", "owner's places", "keys"),
    }
    found = counts(record)
    assert found["dvc remote", "deleted", "files"] == 3
    assert found["workdir", "deleted", "checkpoints with optimiser state"] == 2
    assert found["keys", "deleted", "keys of commitments"] == 1
    assert found["mlflow registry", "deleted", "runs"] == 1
    text = record.canonical().decode()
    assert world.canary.hex() not in text
    assert str(world.root) not in text


def test_the_runs_on_kubeflow_are_listed_and_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, metadata and logs of a run lie in Kubeflow, where no purge reaches."""
    run = world.promoted()
    for name in ("", "0b6e2a4c-first", "0b6e2a4c-first", "91d7-second"):  # one outside Kubeflow, and one whose pod was evicted
        monkeypatch.setenv(KUBEFLOW_RUN, name)
        record_kubeflow_run(run)
    kept = [(line.what, line.count) for line in purge(run).lines if (line.store, line.action) == ("pipeline artifacts", "kept")]
    assert [(what, count) for what, count in kept if "Kubeflow" in what] == [
        (f"parameters, metadata and logs of run {name} on Kubeflow Pipelines", 1) for name in ("0b6e2a4c-first", "91d7-second")
    ]
    assert read_kubeflow_runs(run) == ["0b6e2a4c-first", "91d7-second"], "the purge keeps the list: it may run again"


def test_what_killed_commands_left_half_written_or_fetched_goes_and_what_a_living_one_uses_stays(world: World) -> None:
    """Such a report may show the class, and a fetched model may know it; no record names either."""
    first = world.promoted("first", OTHER)
    second, root = world.promoted("second", base=_base(world)), world.workdir.root
    champion, records = second.folder / "onnx", {path: path.read_bytes() for path in (second.folder / "onnx").iterdir()}
    graphs = (champion / ".model.onnx.dead/model.onnx", champion / "model-inferred.onnx", champion / ".model.onnx.z.part.data")
    dead = (root / ".report.html.x.part", first.folder / ".report.html.y.part", root / ".fetched-dead/model.onnx", *graphs)
    fetched = root / ".fetched-alive/model.onnx"
    for path in (*dead, fetched):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(world.canary)
    with mark_in_use(fetched.parent), atomic_path(root / "outcome.json") as alive:
        alive.write_bytes(world.canary)
        found = counts(purge(second))
        assert alive.exists()
        assert fetched.exists(), "control: what is in use stays"
    assert not any(path.exists() for path in dead)
    assert found["workdir", "deleted", "files that killed steps left half-written"] == 2
    assert found["models", "deleted", "fetched models that killed commands left"] == 1
    assert found["models", "deleted", "files of models that no record names"] == 3
    assert {path: path.read_bytes() for path in champion.iterdir()} == records, "control: the deployed graph stays"


def test_purging_twice_leaves_what_once_leaves(world: World) -> None:
    run = world.promoted()
    first = purge(run)
    left = tree(world.workdir.root)
    assert purge(run) == first
    assert tree(world.workdir.root) == left


def test_a_dry_run_counts_and_changes_nothing(world: World) -> None:
    run = world.promoted()
    before = tree(world.workdir.root)
    found = preview(run)
    assert tree(world.workdir.root) == before
    assert found.unfinished == ()
    done = purge(run)
    told = {(line.store, line.action, line.what): line.count for line in found.lines}
    assert told.items() <= counts(done).items(), "what was announced is what was done"
    assert tree(world.workdir.root) != before, "control"


@pytest.mark.parametrize("missing", [PromotionRecord, VerdictRecord, RollOutRecord, RegisteredRecord])
def test_nothing_is_purged_while_a_record_is_missing(world: World, missing: type) -> None:
    run = world.promoted()
    run.path(missing).unlink()
    before = tree(world.workdir.root)
    with pytest.raises(BadInput, match="first"):
        purge(run)
    assert tree(world.workdir.root) == before


def test_nothing_is_purged_before_the_alias_has_moved(world: World) -> None:
    """The promotion is written down before it happens: a step that was killed in between has promoted nothing."""
    run = world.promoted()
    world.tracking.set_alias("numbers", "champion", "1")
    before = holders(world.canary, world.workdir.root)
    with pytest.raises(BadInput, match="has not forgotten the class at position 2"):
        purge(run)
    assert holders(world.canary, world.workdir.root) == before


def test_nothing_is_purged_where_the_roll_out_that_is_configured_did_not_go_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.promoted()
    before = tree(world.workdir.root)
    for name, value in {"BACKEND": "deployment", "IMAGE": "serve:1", "PUBLISH_TO": "s3://models"}.items():
        monkeypatch.setenv(f"ERASEDIFF_ROLL_OUT_{name}", value)
    with pytest.raises(BadInput, match="was not rolled out by backend deployment"):
        purge(run)
    assert tree(world.workdir.root) == before


def test_a_revoked_model_is_no_way_back_even_when_its_row_stays(build: Callable[..., World]) -> None:
    world = build(purge=PurgeConfig(superseded="tag"))
    first = world.promoted("first", OTHER)
    second = world.promoted("second", base=_base(world))
    record = purge(second)
    assert counts(record)["mlflow registry", "revoked", "versions that know the class"] == 2
    tags = {str(v.version): v.tags for v in world.tracking.versions("numbers")}
    assert ["erasediff.revoked" in tags[n] for n in ("1", "2", "3")] == [True, True, False]
    assert first.need(RegisteredRecord).onnx_sha256 in record.revoked
    # As if an epoch of nothing forbade it: the list alone has to.
    world.tracking.tag_version("numbers", "2", EPOCH_TAG, "2")
    with pytest.raises(BadInput, match="version 2 has been revoked"):
        rollback(world.workdir, "numbers", "2")
    world.workdir.rules.unlink()
    with pytest.raises(BadInput, match=r"holds no served\.json"):  # control: without the list nothing but its missing files is in the way
        rollback(world.workdir, "numbers", "2")


def _base(world: World) -> Any:
    from erasediff.records.core import BaseRecord

    return BaseRecord(name="numbers", version=str(world.tracking.alias("numbers", "champion").version), model=world.champion_model())


def test_another_requests_forget_set_and_evidence_stay(world: World) -> None:
    first = world.promoted("first", OTHER)
    second = world.promoted("second", base=_base(world))
    remote = world.workdir.root / "forget-remote"
    others = tree(remote / first.plan().request.digest()[:16])
    record = purge(second)
    assert tree(remote / first.plan().request.digest()[:16]) == others != {}
    assert world.workdir.request_key(first.plan().request).is_file()
    assert counts(record)["dvc remote", "kept", "forget sets"] == 1
    assert world.tracking.find_run(first.plan().mlflow_run_id) is not None, "another request's measurements are evidence"
    assert not list((world.workdir.root / "mlflow-artifacts" / first.plan().mlflow_run_id).rglob("*.onnx")), "but its model knows the class"
    assert not (first.folder / "onnx").exists()


def test_what_an_open_attempt_needs_stays_with_its_reason_and_goes_when_it_has_ended(world: World) -> None:
    base = world.base()
    other = world.open("other", OTHER)
    run = world.promoted(base=base)
    record = purge(run)
    kept = [line for line in record.lines if line.action == "kept" and "open attempt" in line.verified]
    assert [line.what for line in kept] == ["models", "detectors that know the class"]
    left = {name.partition("/")[0] for name in holders(world.canary, world.workdir.root)}
    assert left == {"models", "detectors", "mlflow-artifacts", "mlflow.db"}, "the base, where it is kept and known, and its judge"
    assert (world.workdir.models / base.model.weights.uri).is_dir()
    assert base.model.weights.sha256 in record.revoked
    world.end(other)
    again = purge(run)
    assert not (world.workdir.models / base.model.weights.uri).exists()
    assert not [line for line in again.lines if "open attempt" in line.verified]
    assert holders(world.canary, world.workdir.root) == []


def test_an_attempt_on_another_model_that_needs_the_forget_set_holds_the_purge_back(world: World) -> None:
    elsewhere = world.open("elsewhere", base=world.base().model_copy(update={"name": "another"}))
    run = world.promoted()
    before = holders(world.canary, world.workdir.root)
    with pytest.raises(BadInput, match="run elsewhere of the same request"):
        purge(run)
    assert holders(world.canary, world.workdir.root) == before
    world.end(elsewhere)
    assert purge(run).complete


def test_the_key_goes_last_and_only_when_everything_else_is_gone(world: World) -> None:
    run = world.promoted()
    remote = world.workdir.root / "forget-remote" / run.plan().request.digest()[:16]
    remote.rename(remote.with_name("unmounted"))
    with pytest.raises(PurgeUnfinished, match="dvc remote"):
        purge(run)
    record = run.need(PurgeRecord)
    assert [entry.store for entry in record.unfinished] == ["dvc remote", "keys"]
    assert "mount its volume" in record.unfinished[0].reason
    key = world.workdir.request_key(run.plan().request)
    assert key.is_file()
    remote.with_name("unmounted").rename(remote)
    assert purge(run).complete
    assert not key.exists()
    assert holders(world.canary, world.workdir.root) == []


def test_a_remote_that_is_not_the_one_of_the_records_is_not_taken_for_it(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.promoted()
    (tmp_path / "another").mkdir()
    monkeypatch.setenv("ERASEDIFF_DVC_REMOTE", str(tmp_path / "another"))
    with pytest.raises(PurgeUnfinished, match="another DVC remote than the current one"):
        purge(run)
    monkeypatch.delenv("ERASEDIFF_DVC_REMOTE")
    assert purge(run).complete


def test_a_file_that_nobody_thought_of_goes_and_one_that_refuses_is_said(world: World) -> None:
    run = world.promoted()
    (run.folder / "thumbnails").mkdir()
    (run.folder / "thumbnails" / "a.png").write_bytes(world.canary)
    assert counts(purge(run))["workdir", "deleted", "other files of attempts"] == 2
    assert holders(world.canary, world.workdir.root) == []


def test_surplus_erased_builds_go_and_the_warm_one_stays(build: Callable[..., World]) -> None:
    world = build(purge=PurgeConfig(warm_builds=2))
    base, builds = world.base(), []
    for number in range(3):
        run = world.open(f"try-{number}", base=base, number=number + 1)
        world.erase(run)
        builds.append(world.register(run))
    _promote(world, run)
    record = purge(run)
    assert [str(v.version) for v in world.tracking.versions("numbers")] == [builds[2].version, builds[1].version]
    assert builds[0].onnx_sha256 in record.revoked
    assert builds[1].onnx_sha256 not in record.revoked
    assert rollback(world.workdir, "numbers").version == builds[1].version


def _promote(world: World, run: Attempt) -> None:
    from erasediff.steps.promote import promote
    from erasediff.steps.roll_out import roll_out

    roll_out(run)
    promote(run)
    world.end(run)
    assert run.plan().position == LABEL
