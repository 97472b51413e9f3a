"""The lie: 'it is the same pipeline', of a runner here and a compiled pipeline that do not end alike; and a short way that has grown long."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path

import pytest
import yaml

import erasediff
from erasediff.attempts.workdir import Workdir
from erasediff.cli import main
from erasediff.errors import ExitCode
from erasediff.evidence.keys import PRIVATE
from erasediff.records.core import BaseRecord, ErasedRecord, ExportedRecord, ForgetSetRecord, Outcome, RegisteredRecord, VerdictRecord
from erasediff.records.measurements import Measurements
from erasediff.records.names import names_digest
from erasediff.records.settings import RollOutSettings
from erasediff.records.trainjob import TrainJobSettings
from erasediff.rollout.backend import Candidate
from erasediff.rollout.kserve import inference_service, predictor
from erasediff.rollout.objects import deployment
from erasediff.rollout.store import Exported
from erasediff.steps.table import STEPS, Role, step_named
from erasediff.trainjob import job_name, torchrun_arguments, trainjob
from erasediff.unlearn.methods import METHODS
from erasediff.unlearn.methods.erasediff import EraseDiff
from pipelines.tasks import PROFILES, trainjob_settings
from tests.e2e.numbers import QUICK, write_images
from tests.issuer import issuer
from tests.kubeflow.fake_kfp import FakeKfpApi
from tests.kubeflow.handed_over import CONCEPT, FULL_NAME, WORDS, LocalRun, compiled_files, holding

PACKAGE = Path(erasediff.__file__).parent
NAMES = (FULL_NAME, *(f"{given} {FULL_NAME.split()[-1]}" for given in ("Ada", "Berta", "Cora", "Dora", "Edda", "Fina", "Gerda", "Hedwig", "Ida")))
PERFORMED = [row.name for row in STEPS if row.role not in (Role.ANSWERS, Role.IDLES)]
"""By a run that no request of the ledger waits for."""
MULTI = next(profile for profile in PROFILES if profile.erasing_nodes)
MOST_FRAMES = 12
AS_OBJECTS = {"ERASEDIFF_LOG": "json", "ERASEDIFF_LOG_SECONDS": "0.2"}
"""The form of the compiled pipeline's logs, and how often long work says how far it is."""


class Recorded(EraseDiff):
    """EraseDiff, which writes down who called its first step, and in which process."""

    stacks: list[list[str]]
    processes: set[int]

    def step(self, *arguments):
        type(self).processes.add(os.getpid())
        type(self).stacks.append([f"{frame.filename}:{frame.name}" for frame in traceback.extract_stack()[:-1]])
        return super().step(*arguments)


def command(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """What a run is asked for: to forget a class that is named after a person, among others that are."""
    folder = tmp_path_factory.mktemp("people")
    write_images(folder / "images", NAMES)
    dataset = {"name": "people", "kind": "folder", "path": str(folder / "images")}
    config = yaml.safe_load((QUICK / "config.yaml").read_text()) | {"dataset": dataset, "model_name": "people"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return "--config", folder / "config.yaml", "--policy", QUICK / "policy.yaml", "--forget-label", FULL_NAME


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What kfp's local runner starts and stores."""
    return LocalRun(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def both(tmp_path_factory, warmed, options, recorded):
    """One attempt, opened once and run to its end twice: in this process, and in a copy of its workdir by the compiled pipeline.

    A concept document lies in the copy.
    """
    folder = tmp_path_factory.mktemp("runners")
    here, there = folder / "here", folder / "there"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW", "ERASEDIFF", "AWS"))]:
            patch.delenv(name)
        patch.setenv("ERASEDIFF_SIGNING_KEY", str(issuer() / PRIVATE))
        assert command("train-base", "--workdir", here, *options[:2]) == 0
        assert command("check-prerequisites", "--workdir", here, *options) == 0
        for copy in (there, folder / "refused"):
            shutil.copytree(here, copy)
        (there / "concept.yaml").write_text(yaml.safe_dump(CONCEPT, allow_unicode=True))
        Recorded.stacks, Recorded.processes = [], set()
        patch.setitem(METHODS, "erasediff", Recorded)
        assert command("run", "--workdir", here, *options) == 0
        shutil.copytree(here / "keys", there / "keys")  # what commitments are made with is drawn once a request
        for name, value in AS_OBJECTS.items():
            patch.setenv(name, value)
        patch.setattr(sys, "executable", str(recorded.by(warmed.programs(folder / "programs") / "python")))
        patch.setenv("TMPDIR", str(recorded.scratch))
        assert command("run", "--workdir", there, *options, "--runner", "kubeflow-local") == 0, (there / "pipeline.log").read_text()[-3000:]
    return Workdir(here), Workdir(there)


def test_from_the_command_to_the_update_rule_it_is_a_short_way_in_one_process(both):
    """Control: the frames are counted, the command's and the step's among them."""
    assert Recorded.processes == {os.getpid()}
    frames = [frame for frame in Recorded.stacks[0] if Path(frame.partition(":")[0]).is_relative_to(PACKAGE)]
    names = [Path(frame.partition(":")[0]).name for frame in frames]
    assert {"pipeline.py", "runner.py", "erase.py", "trainer.py"} <= set(names)
    assert len(frames) <= MOST_FRAMES, "\n".join(frames)


def test_the_compiled_pipeline_leaves_the_same_records_with_the_same_digests(both):
    here, there = (workdir.attempt() for workdir in both)
    for kind in (BaseRecord, ForgetSetRecord, ErasedRecord, Measurements, VerdictRecord, ExportedRecord):
        assert here.digest_of(kind) == there.digest_of(kind), kind.__name__
    places = {"source"}
    assert here.need(RegisteredRecord).model_dump(exclude=places) == there.need(RegisteredRecord).model_dump(exclude=places)


def test_they_say_the_same_of_it(both):
    here, there = (Outcome.read(workdir.outcome) for workdir in both)
    taken = {"seconds"}
    assert here.verdict == "PASS"
    assert here.model_dump(exclude=taken) == there.model_dump(exclude=taken)
    assert list(here.seconds) == list(there.seconds)


def test_every_step_of_the_compiled_pipeline_logs_objects_and_nothing_else(both):
    """Control: kfp's own lines, of the tasks around them, are in the same file, with what the steps gave back."""
    there = both[1]
    log = there.root.joinpath("pipeline.log").read_text()
    streams = [part.partition("finished with status")[0] for part in log.split("Streamed logs:")[1:]]
    lines = [line.strip() for stream in streams for line in stream.splitlines()[:-1] if line.strip()]
    objects = [json.loads(line) for line in lines]
    named = {(one["step"], one.get("state")) for one in objects}
    assert {(name, state) for name in PERFORMED for state in ("started", "done")} <= named
    ended = {one["step"]: one for one in objects if one.get("state") == "done"}
    assert ended["erase"]["digest"] == there.attempt().digest_of(ErasedRecord)[:12]
    assert ended["gate"]["result"].startswith("PASS, ")
    erasing = [one for one in objects if one.get("what") == "erasing" and "seconds_left" in one]
    assert {"retain_loss", "forget_loss", "multiplier", "images_per_second"} <= set(erasing[-1])
    assert [one for one in objects if one.get("what") == "exporting the graph"]
    config = there.attempt().config()
    assert not [line for line in lines if "checkpoint_every" in line or config.digest() in line]
    assert "Executing task" in log


def test_a_workdir_that_was_moved_is_the_same_workdir(both):
    """The second run is in a copy. Control: its models and graphs were uploaded there, and not beside the first."""
    from mlflow import MlflowClient

    for workdir in both:
        client = MlflowClient(f"sqlite:///{workdir.root}/mlflow.db")
        assert client.get_model_version_by_alias("people", "champion").source.startswith((workdir.root / "mlflow-artifacts").as_uri())
    there = both[1].root
    assert command("sample", "--model", "models:/people@champion", "--label", NAMES[3], "--out", there / "a.png", "--workdir", there) == 0


def cluster_objects(attempt):
    """What the steps of a run would make in a cluster: a TrainJob and the objects of a roll-out."""
    settings = TrainJobSettings.parse(trainjob_settings(MULTI, step_named("erase")) | {"size": MULTI.training.model_dump()}, "the profile")
    arguments = torchrun_arguments("erase", "--workdir", str(attempt.workdir.root), "--run", attempt.name)
    serving = RollOutSettings(publish_to="s3://models/erasures", image="serve:1")
    candidate = Candidate("s3://models/erasures/1", Exported.read(attempt.folder / "onnx").model)
    made = {
        "TrainJob": trainjob(job_name(attempt.plan().digest()), arguments, settings),
        "Deployment": deployment(serving, "canary", candidate, 1),
        "InferenceService": inference_service(serving, predictor(serving, candidate), candidate),
    }
    return {kind: json.dumps(document).encode() for kind, document in made.items()}


@pytest.fixture
def submitted(options):
    """What `submit` and `schedule` send for that class: everything that Kubeflow's API was given."""
    with FakeKfpApi() as kfp, pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "setdefaulttimeout", lambda _: None)
        for asked in (("submit", "--profile", "gpu-multi"), ("schedule", "--cron", "0 0 3 * * *", "--profile", "cpu")):
            assert command(*asked, "--host", kfp.host, *options) == 0
        yield {name: getattr(kfp, name) for name in ("experiments", "pipelines", "versions", "runs", "schedules")}


def test_nothing_that_kubeflow_gets_holds_a_word_that_names_a_person(both, recorded, submitted):
    """Controls: the words are in the workdir, in the report, which is the exception, and found in a parameter that holds them."""
    there = both[1]
    attempt = there.attempt()
    things = {
        **compiled_files(),
        **{f"submitted {name}": json.dumps(sent).encode() for name, sent in submitted.items()},
        **recorded.started(),
        **recorded.store(),
        **cluster_objects(attempt),
        "log": (there.root / "pipeline.log").read_bytes(),
    }
    inputs = [name for name, data in recorded.started().items() if b"--executor_input" in data]
    assert len(inputs) == len(PERFORMED), "every task was started by the program that records"
    outputs = [name for name in things if name.endswith("executor_output.json")]
    assert len(outputs) == len(inputs)
    assert b'"metadata"' in b"".join(things[name] for name in outputs)
    assert holding(WORDS, things) == []
    for sent in (*submitted["runs"], *submitted["schedules"]):
        parameters = sent["runtime_config"]["parameters"]
        classes = attempt.need(BaseRecord).model.class_names
        handed = {"dataset": "people", "scope": "class", "position": attempt.plan().position, "classes_sha256": names_digest(classes)}
        assert json.loads(parameters["request"]) == handed
        for word in WORDS:
            worded = {**sent, "runtime_config": {"parameters": {**parameters, "request": json.dumps({"prompt": word})}}}
            assert holding(WORDS, {"worded": json.dumps(worded).encode()}) == ["worded"]
    assert holding(WORDS, {"report": recorded.report()}) == ["report"]
    assert holding(WORDS, {"concept": (there.root / "concept.yaml").read_bytes()}) == ["concept"]


def test_a_run_whose_gate_does_not_say_pass_has_failed_on_kubeflow(both, options, monkeypatch):
    """Kubeflow would show a run that skips the steps after its gate as green. Control: the run above, whose gate said PASS, ended with 0."""
    here = both[0].attempt()
    refused = Workdir(both[0].root.parent / "refused")
    attempt = refused.attempt(here.name)
    for made in ("models", "detectors", "forget-remote"):
        shutil.copytree(both[0].root / made, refused.root / made, dirs_exist_ok=True)
    for kind in (BaseRecord, ForgetSetRecord, ErasedRecord):
        shutil.copy(here.path(kind), attempt.path(kind))
    shutil.copy(here.folder / here.need(ErasedRecord).curves.uri, attempt.folder)
    measured = here.need(Measurements)
    every = measured.forget_erased.model_copy(update={"detections": measured.forget_erased.n})
    measured.model_copy(update={"forget_erased": every}).write(attempt.path(Measurements))
    for name in [name for name in os.environ if name.startswith(("MLFLOW", "ERASEDIFF", "AWS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(issuer() / PRIVATE))
    assert command("run", "--workdir", refused.root, *options, "--runner", "kubeflow-local") == ExitCode.GATE_FAIL
    outcome, log = Outcome.read(refused.outcome), (refused.root / "pipeline.log").read_text()
    assert (outcome.verdict, outcome.champion, outcome.error) == ("FAIL", None, None)
    assert "erasediff gate (exit code 10): Gate: FAIL (F1" in log
    assert "Export to ONNX" not in log
