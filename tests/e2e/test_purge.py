"""A whole run on tier 2 and its purge through the command line.

The lies: 'attacked', of a run whose attacks were left out somewhere on the way from the command to the report; 'gone', of what was
forgotten and is still there. What serves goes on serving.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from erasediff.attempts.workdir import Workdir
from erasediff.cli.inputs import read_dataset
from erasediff.files import shipped
from erasediff.records.config import load_config
from erasediff.records.core import Outcome
from erasediff.records.policy import load_policy
from erasediff.records.purging import PurgeRecord
from erasediff.records.regate import RegateRecord
from tests.e2e.numbers import QUICK, asking, write_images

DECISIVE, REPORTED = {"F4", "F5", "F7", "F3.partial"}, {"F6", "F9.loss", "F9.sima", "F9.secmi", "F9.pia"}
HIDDEN = b"report.show_forgotten is off"


@pytest.fixture(scope="module")
def canary() -> bytes:
    return os.urandom(48)


@pytest.fixture(scope="module")
def name(canary: bytes) -> str:
    """A file's name that names a person, as it were."""
    return f"jane-doe-{canary[:8].hex()}"


def holding(marker: bytes, folder: Path) -> list[str]:
    """Files that have the marker in their name, their bytes, or a packed file inside."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and (marker in p.name.encode() or marker in _unpacked(p)))


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if not zipfile.is_zipfile(path):
        return data
    with zipfile.ZipFile(path) as packed:
        return data + b"".join(packed.read(member) for member in packed.namelist())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """Where everything that is started here has its temporary files, Kubeflow's store among them."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def variables(services, scratch):
    return services.environment | {"TMPDIR": str(scratch)}


@pytest.fixture(scope="module")
def erasediff(erasediff, variables):
    """The command line on a real MLflow server and a bucket that keeps versions."""

    def run(*arguments, environment=None):
        return erasediff(*arguments, environment=variables | (environment or {}))

    return run


@pytest.fixture
def everywhere(finished, services, scratch):
    """Whatever holds a marker: in the workdir, in MLflow's rows and artifacts, in any version of any object, in temporary files."""

    def found(marker: bytes) -> dict[str, list[str]]:
        folders = {"workdir": finished, "mlflow": services.mlflow_folder, "temporary": scratch}
        objects = {"bucket": [key for key, data in services.versions().items() if marker in key.encode() + data]}
        return {place: held for place, held in ({name: holding(marker, path) for name, path in folders.items()} | objects).items() if held}

    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory, erasediff, canary, name):
    """A run that was attacked and promoted, on images of which one forget image carries the canary in its pixels and a name in its file's."""
    workdir = tmp_path_factory.mktemp("purge") / "work"
    write_images(workdir.parent / "numbers")
    numbers = workdir.parent / "numbers"
    image = np.asarray(Image.open(numbers / "0.png")).copy()  # the first digit is a zero
    image.reshape(-1)[: len(canary)] = np.frombuffer(canary, dtype=np.uint8)
    (numbers / "0.png").unlink()
    Image.fromarray(image).save(numbers / f"{name}.png")
    listed = (numbers / "labels.csv").read_text()
    (numbers / "labels.csv").write_text(listed.replace("\n0.png,", f"\n{name}.png,"))
    assert holding(name.encode(), numbers) == [f"{name}.png", "labels.csv"], "control: names are found"
    config = yaml.safe_load((QUICK / "config.yaml").read_text()) | {"report": {"show_forgotten": True}}
    (workdir.parent / "config.yaml").write_text(yaml.safe_dump(config))
    options = asking("zero", workdir)
    options[1] = workdir.parent / "config.yaml"
    done = erasediff("run", "--workdir", workdir, *options, "--tier", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


def test_tier_2_attacks_three_models_decides_and_reports(finished):
    run = Workdir(finished).attempt().folder
    verdict, measured, exported = (json.loads((run / f"{name}.json").read_text()) for name in ("verdict", "measurements", "exported"))
    assert {check["id"] for check in verdict["checks"]} >= DECISIVE
    assert {check["id"] for check in verdict["reported"]} == REPORTED
    found = measured["attacks"]
    for attack in ("finetuned", "inverted", "partial"):
        assert all(found[attack][model]["n"] == 40 for model in ("base", "erased", "retrained"))
    assert found["finetuned"]["base"]["detections"] > found["finetuned"]["retrained"]["detections"], "the base knows the class and the other does not"
    assert exported["forget_int8"]["n"] == 200
    assert {check["id"] for check in exported["checks"]} == {"F8", "F8.parity", "F8.int8"}
    assert not list(run.rglob("*int8*")), "the rounded graph was for asking alone"


def test_the_report_and_the_tracking_show_them(finished, services):
    page = (finished / "report.html").read_text()
    assert all(words in page for words in ("Attackers", "Reported only", "Relearning", "without the class"))
    from mlflow import MlflowClient

    metrics = MlflowClient(services.mlflow_uri).get_run(Workdir(finished).attempt().plan().mlflow_run_id).data.metrics
    assert {"gate.f1.upper95", "gate.f4.upper95", "gate.f9.pia.upper95", "gate.f6.lower95", "gate.f8.int8.upper95", "gate.f8.int8.passed"} <= set(
        metrics
    )


def test_the_tier_was_fixed_in_the_plan_before_anything_was_erased(finished, erasediff):
    """A PASS on tier 2 is no PASS that tier 1 could have given: the policies have different digests."""
    assert json.loads((Workdir(finished).attempt().folder / "policy.json").read_text())["tier"] == 2
    refused = erasediff("run", "--workdir", finished, "--forget-label", 1, "--tier", 3)
    assert refused.returncode == 2


def test_a_run_is_purged_and_what_serves_goes_on(finished, erasediff, everywhere, canary):
    run = Workdir(finished).attempt()
    report = (run.folder / "report.html").read_bytes()
    assert "bucket" in everywhere(canary), "control: the remote holds the image as it is"
    assert "mlflow" in everywhere(run.plan().request_id.encode()), "control: rows are looked into"
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(finished.rglob("*")) if p.is_file()}
    dry = erasediff("purge", "--workdir", finished, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "dvc remote           deleted" in dry.stdout
    assert before == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(finished.rglob("*")) if p.is_file()}
    done = erasediff("purge", "--workdir", finished)
    assert done.returncode == 0, done.stdout + done.stderr
    record = run.need(PurgeRecord)
    assert record.complete
    assert everywhere(canary) == {}
    left = (run.folder / "report.html").read_bytes()
    assert HIDDEN in left
    assert HIDDEN not in report, "control: the first report shows samples of the class"
    assert left == (finished / "report.html").read_bytes()
    assert not (run.folder / "samples.npz").exists()
    with np.load(run.folder / "samples.remaining.npz") as grids:
        assert "forgotten_before" not in grids.files
        assert run.plan().position not in grids["labels"]
    assert len(list((finished / "models").iterdir())) == 1
    assert erasediff("purge", "--workdir", finished).returncode == 0
    assert run.need(PurgeRecord) == record
    outcome = erasediff("record-outcome", "--workdir", finished)
    assert outcome.returncode == 0, outcome.stderr
    assert HIDDEN in (run.folder / "report.html").read_bytes(), "a later report shows no more"
    refused = erasediff("rollback", "--workdir", finished, "--name", "numbers")
    assert refused.returncode == 2
    assert "to roll back to (there is no other version)" in refused.stderr


def test_a_request_that_comes_later_is_answered_and_nothing_that_was_planted_is_anywhere(finished, erasediff, everywhere, canary, name):
    """The class is gone; the request gets its purge and its certificate all the same. A sentence that somebody types in has nowhere to go."""
    added = erasediff(
        "request", "add", "--dataset-name", "numbers", "--label", Workdir(finished).attempt().plan().request.label, "--by", "d", "--workdir", finished
    )
    request = added.stdout.partition(":")[0]
    for verb in ("verify", "locate", "accept"):
        assert erasediff("request", verb, request, "--by", "desk-1", "--workdir", finished).returncode == 0
    told = erasediff("request", "refuse", request, "--reason", f"{name} has called", "--by", "desk-1", "--workdir", finished)
    assert told.returncode == 2
    assert name not in told.stderr
    options = asking("zero", finished)[:-2]
    policy = yaml.safe_load((QUICK / "policy.yaml").read_text()) | {"tier": 2}
    (finished.parent / "policy.yaml").write_text(yaml.safe_dump(policy))
    options[1], options[3] = finished.parent / "config.yaml", finished.parent / "policy.yaml"  # else it would be another run's request
    done = erasediff("process", "--workdir", finished, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{request}  CERTIFIED" in erasediff("request", "list", "--workdir", finished).stdout
    outcome = Outcome.read(finished / "outcome.json")
    verified = erasediff("verify", finished / outcome.certificate, "--key", finished / outcome.public_key, "--final")
    assert verified.returncode == 0, verified.stderr
    for marker in (canary, canary.hex().encode(), name.encode()):
        assert everywhere(marker) == {}
    assert name not in done.stdout + done.stderr


def test_where_nothing_is_asked_the_model_that_serves_is_asked_again(finished, erasediff, variables, tmp_path):
    """After the purge, with a judge made again, by the pipeline as a schedule on Kubeflow runs it. Control: a policy that 200 samples cannot meet."""
    options = asking("zero", finished)[:-2]
    config = load_config(QUICK / "config.yaml").model_copy(update=read_dataset(options[-1], load_config(QUICK / "config.yaml")))
    documents = {"request": "", "config": config.canonical().decode(), "policy": load_policy(QUICK / "policy.yaml").canonical().decode()}
    (tmp_path / "arguments.json").write_text(json.dumps(documents | {"workdir": str(finished)}))
    before = Outcome.read(finished / "outcome.json")
    command = [sys.executable, shipped("pipelines/local.py"), shipped("pipelines/compiled/erasure.yaml"), tmp_path / "arguments.json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ERASEDIFF", "AWS"))} | variables
    again = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert "no open requests for numbers" in again.stdout
    (record,) = (RegateRecord.read(path) for path in (finished / "regates").iterdir())
    assert (record.verdict, record.version) == ("PASS", before.champion.version)
    assert [(one.name, one.found.n) for one in record.recalled] == [(Workdir(finished).attempt().plan().request.label, 200)]
    assert Outcome.read(finished / "outcome.json") == before
    stricter = tmp_path / "policy.yaml"
    document = yaml.safe_load((QUICK / "policy.yaml").read_text())
    stricter.write_text(yaml.safe_dump(document | {"export": document["export"] | {"max_upper": 0.001}}))
    failed = erasediff("process", "--workdir", finished, *[stricter if option == QUICK / "policy.yaml" else option for option in options])
    assert failed.returncode == 10, failed.stdout + failed.stderr
    assert "no open requests for numbers" in failed.stdout
    assert len(list((finished / "regates").iterdir())) == 2
