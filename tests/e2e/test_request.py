"""The main job, from filed requests to their certificates, with a real MLflow server over HTTP and an S3 remote for DVC; with little training."""

import json

import pytest
import yaml

from erasediff.attempts.batch import batch_of
from erasediff.attempts.workdir import Workdir
from erasediff.evidence.keys import PRIVATE
from erasediff.files import sha256_file
from erasediff.records.core import BaseRecord, ErasedRecord, ExportedRecord, Outcome, RegisteredRecord, VerdictRecord
from erasediff.steps.table import work_steps
from tests.e2e.conftest import log_of
from tests.e2e.numbers import QUICK

FORGET, NEXT, BESIDE = "0", "3", "5"
STEPS = 60


@pytest.fixture(scope="module")
def desk(tmp_path_factory, services, erasediff):
    """A workdir, a signing key, and the command line on them; the demo needs nothing of it, see test_demo.py."""
    workdir = tmp_path_factory.mktemp("desk") / "work"
    keys = workdir.parent / "keys"
    assert erasediff("keys", "new", "--to", keys).returncode == 0
    environment = services.environment | {"ERASEDIFF_SIGNING_KEY": str(keys / PRIVATE)}

    def run(*arguments):
        return erasediff(*arguments, "--workdir", workdir, environment=environment)

    return workdir, run


def process(desk, steps, *labels):
    """File and accept requests for labels, and have the ledger's open requests fulfilled."""
    workdir, run = desk
    for label in labels:
        added = run("request", "add", "--dataset-name", "digits", "--label", label, "--by", "desk-1", "--unchecked")
        for verb in ("verify", "locate", "accept"):
            run("request", verb, added.stdout.partition(":")[0], "--by", "desk-1")
    return run("process", *documents(workdir, steps))


def documents(workdir, steps):
    """The quick ones, with so many steps of erasing."""
    config = yaml.safe_load((QUICK / "config.yaml").read_text())
    config["erase"]["steps"] = steps
    path = workdir.parent / f"{steps}-steps.yaml"
    path.write_text(yaml.safe_dump(config))
    return "--config", path, "--policy", QUICK / "policy.yaml"


@pytest.fixture(scope="module")
def first(desk):
    """A request on an empty workdir, from the ledger to the certificate."""
    return desk[0], process(desk, STEPS, FORGET)


@pytest.fixture(scope="module")
def second(first, desk):
    """Two more requests, which the next run takes together."""
    return first[0], process(desk, 3 * STEPS, NEXT, BESIDE)  # two classes need more than one does


def client(services):
    from mlflow import MlflowClient

    return MlflowClient(services.mlflow_uri)


def test_a_request_is_fulfilled_and_the_model_promoted(first):
    workdir, done = first
    assert done.returncode == 0, done.stdout + done.stderr + log_of(workdir)
    outcome = Outcome.read(workdir / "outcome.json")
    assert (outcome.verdict, outcome.attempt, outcome.forget.label, outcome.forget.n) == ("PASS", 1, FORGET, 200)
    assert outcome.forget_set.count == 178  # all images of the class in the dataset


def test_the_outcome_has_exactly_the_promised_fields(first):
    workdir, _ = first
    outcome = json.loads((workdir / "outcome.json").read_text())
    assert set(outcome) == {
        *("verdict", "attempt", "forget", "retain", "champion", "forget_set", "report", "seconds", "error"),
        *("certificate", "public_key", "request"),
    }
    assert set(outcome["forget"]) == {"label", "n", "detections", "upper"}
    assert set(outcome["retain"]) == {"accuracy_base", "accuracy_erased", "lower_bound", "fd_base", "fd_erased", "fd_change_upper"}
    assert set(outcome["champion"]) == {"name", "version", "weights_sha256", "onnx_sha256"}
    assert set(outcome["seconds"]) >= {row.name for row in work_steps()}
    assert outcome["error"] is None


def test_the_registry_holds_what_was_measured(first, services):
    workdir, _ = first
    outcome = Outcome.read(workdir / "outcome.json")
    champion = client(services).get_model_version_by_alias("digits", "champion")
    assert champion.version == outcome.champion.version == "2"
    assert champion.tags["erasediff.weights_sha256"] == outcome.champion.weights_sha256
    assert champion.tags["erasediff.onnx_sha256"] == outcome.champion.onnx_sha256
    assert champion.tags["erasediff.forget_set_version"] == outcome.forget_set.version
    model = workdir / "models" / outcome.champion.weights_sha256[:16]
    assert sha256_file(model / "unet/diffusion_pytorch_model.safetensors") == outcome.champion.weights_sha256
    artifacts = {a.path for a in client(services).list_artifacts(champion.run_id, "model")}
    assert "model/unet" in artifacts


def test_curves_reach_mlflow_step_by_step(first, services):
    workdir, _ = first
    (plan,) = (workdir / "runs").glob("*/plan.json")
    run_id = json.loads(plan.read_text())["mlflow_run_id"]
    history = client(services).get_metric_history(run_id, "erase.forget_loss")
    assert len(history) == json.loads((plan.parent / "erased.json").read_text())["steps"]
    assert client(services).get_run(run_id).info.status == "FINISHED"


def test_the_forget_set_was_in_the_bucket_and_is_gone_from_there_and_from_the_workdir(first, services):
    """Control: the purge says how many objects it found there."""
    workdir, _ = first
    assert not list(services.bucket().object_versions.all())
    (purged,) = (workdir / "runs").glob("*/purge.json")
    lines = {line["store"]: line for line in json.loads(purged.read_text())["lines"] if line["action"] == "deleted"}
    assert lines["dvc remote"]["count"] >= 2
    assert not list(workdir.rglob("shard-*.npz"))
    assert not [p for p in workdir.rglob("*") if p.name in {".dvc", ".scratch", "checkpoint.safetensors"}]
    assert not list((workdir / "keys").iterdir()), "the key of the commitments went last"


def test_the_request_ends_certified_and_its_certificate_verifies(first, services, erasediff, tmp_path):
    """Control: not with one byte of the graph changed."""
    workdir, _ = first
    outcome = Outcome.read(workdir / "outcome.json")
    listed = erasediff("request", "list", "--workdir", workdir, environment=services.environment).stdout
    assert f"{outcome.request}  CERTIFIED" in listed
    folder, model = (workdir / outcome.certificate).parent, workdir / "models" / outcome.champion.weights_sha256[:16]
    held = ["--key", workdir / outcome.public_key, "--model", model, "--purge", folder / "purge.json", "--final"]
    done = erasediff("verify", workdir / outcome.certificate, *held, "--onnx", folder / "onnx/model.onnx")
    assert done.returncode == 0, done.stderr
    graph = bytearray((folder / "onnx/model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(graph)
    refused = erasediff("verify", workdir / outcome.certificate, *held, "--onnx", tmp_path / "model.onnx")
    assert refused.returncode == 2
    assert "graph" in refused.stderr


def test_the_report_is_there_and_says_the_verdict(first):
    workdir, _ = first
    html = (workdir / "report.html").read_text()
    assert "PASS" in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_asking_again_for_what_is_done_does_nothing_and_says_so(first, desk, services):
    workdir, run = desk
    before = (workdir / "promotions.jsonl").read_bytes(), client(services).get_model_version_by_alias("digits", "champion").version
    again = run("run", "--forget-label", FORGET, *documents(workdir, STEPS))
    assert again.returncode == 0, again.stderr + log_of(workdir)
    assert before == ((workdir / "promotions.jsonl").read_bytes(), client(services).get_model_version_by_alias("digits", "champion").version)


def test_other_labels_start_from_the_champion_without_training_a_base(second, services):
    workdir, done = second
    assert done.returncode == 0, done.stdout + done.stderr + log_of(workdir)
    outcome = Outcome.read(workdir / "outcome.json")
    assert (outcome.verdict, outcome.champion.version) == ("PASS", "3")
    assert {run.need(BaseRecord).version for run in batch_of(Workdir(workdir).attempt())} == {"2"}
    versions = {v.version for v in client(services).search_model_versions("name='digits'")}
    assert versions == {"3"}, "the base knew all three digits, and version 2 the other two"


def test_what_is_asked_at_the_same_time_is_erased_in_one_run_and_judged_and_certified_one_by_one(second, services, erasediff):
    """Control: the certificate of one is not that of the other."""
    workdir, _ = second
    batch = batch_of(Workdir(workdir).attempt())
    assert [run.plan().request.label for run in batch] == [NEXT, BESIDE]
    model, same = (run.need(ErasedRecord).model for run in batch)
    assert model == same
    assert (model.forgotten, model.epoch) == ((FORGET, NEXT, BESIDE), 2)
    assert {run.need(RegisteredRecord).version for run in batch} == {"3"}
    assert len({run.need(ExportedRecord).onnx.sha256 for run in batch}) == 1
    scopes = []
    for run in batch:
        outcome = Outcome.read(run.folder / "outcome.json")
        assert (outcome.verdict, outcome.error, outcome.forget.label) == ("PASS", None, run.plan().request.label)
        assert run.need(VerdictRecord).checks[0].n
        certificate, key = workdir / outcome.certificate, workdir / outcome.public_key
        exported = run.folder / "onnx"  # with a manifest of its own
        assert erasediff("verify", certificate, "--key", key, "--onnx", exported, "--purge", run.folder / "purge.json", "--final").returncode == 0
        other = next(one for one in batch if one != run)
        assert erasediff("verify", certificate, "--key", key, "--purge", other.folder / "purge.json", "--final").returncode == 2
        scopes.append(erasediff("verify", certificate, "--key", key).stdout)
    assert scopes[0] != scopes[1]
    listed = erasediff("request", "list", "--workdir", workdir, environment=services.environment).stdout
    assert listed.count("CERTIFIED") == 3


def test_what_was_forgotten_before_is_measured_again(second):
    workdir, _ = second
    for run in batch_of(Workdir(workdir).attempt()):
        checks = {check.id: check for check in run.need(VerdictRecord).checks}
        assert checks[f"F1.{FORGET}"].verdict == "PASS"
    lines = [json.loads(line) for line in (workdir / "promotions.jsonl").read_text().splitlines()]
    assert [(p["previous_version"], p["version"]) for p in lines] == [("1", "2"), ("2", "3"), ("2", "3")]


def test_a_label_that_is_forgotten_cannot_be_erased_again_under_another_configuration(second, desk):
    workdir, run = desk
    refused = run("run", "--forget-label", FORGET, "--seed", "5", *documents(workdir, STEPS))
    assert refused.returncode == 2
    assert "already forgotten" in refused.stderr


def test_a_picture_can_be_sampled_from_the_champion(first, desk, tmp_path):
    from PIL import Image

    _, run = desk
    done = run("sample", "--model", "models:/digits@champion", "--label", "3", "--out", tmp_path / "three.png")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "three.png").size == (8, 8)
