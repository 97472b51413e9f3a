"""``erasediff submit`` and ``schedule``: the real ``kfp.Client`` before a fake of Kubeflow Pipelines' REST API."""

import json
import os
import socket
import urllib.request
from urllib.error import HTTPError

import pytest
import yaml

from erasediff.cli import main
from erasediff.cli.inputs import read_classes
from erasediff.errors import BadInput
from erasediff.files import sha256_file, shipped
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest
from erasediff.records.names import names_digest
from erasediff.records.policy import GatePolicy, load_policy
from erasediff.records.positions import PositionedRequest
from erasediff.records.sizes import PROFILE_SIZES
from erasediff.records.submission import PROFILES, Backend
from erasediff.submit import request_for, submission
from pipelines import submit as script
from pipelines import tasks
from tests.digits import DIGITS
from tests.kubeflow.fake_kfp import FakeKfpApi
from tests.kubeflow.fake_trainer import RECORDED
from tests.kubeflow.server import Refused

CONFIG, NIGHTLY = RunConfig(), "0 0 3 * * *"
SIZE = PROFILE_SIZES["gpu"]
POLICY = load_policy(shipped("policies/class-conditional.yaml"))


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch, tmp_path):
    for name in [n for n in os.environ if "KFP" in n or n.startswith("KF_PIPELINES")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda _: None)  # it would outlive the test in this process


@pytest.fixture
def kfp():
    with FakeKfpApi() as fake:
        yield fake


def asked_of(label: int) -> PositionedRequest:
    return PositionedRequest.of(ErasureRequest(dataset="digits", label=str(label)), DIGITS)


def hand_in(fake, cron=None, profile="gpu", label=3, config=CONFIG, **where):
    """What the process does that ``erasediff submit`` starts."""
    asked = submission(Backend(host=fake.host, **where), profile, asked_of(label), config, POLICY, SIZE, cron)
    return script.answer(json.loads(asked.canonical()))


def refused(fake, cron=None, **options):
    with pytest.raises(script.Refused) as caught:
        hand_in(fake, cron, **options)
    sentence = str(caught.value)
    assert sentence.count("\n") == 0
    return sentence


# --- a run


def test_a_run_carries_the_three_documents_and_the_version_of_the_file(kfp):
    answer = hand_in(kfp, profile="gpu-multi", service_account="erasediff")
    (run,), (version,) = kfp.runs, kfp.versions
    assert answer == {"run_id": run["run_id"], "uploaded": True}
    parameters = run["runtime_config"]["parameters"]
    assert PositionedRequest.parse_json(parameters["request"], "request") == asked_of(3)
    assert RunConfig.parse_json(parameters["config"], "config") == CONFIG
    assert GatePolicy.parse_json(parameters["policy"], "policy") == POLICY
    assert version["name"].removeprefix("sha256-") == sha256_file(shipped("pipelines/compiled/erasure-gpu-multi.yaml"))[:48]
    assert run["pipeline_version_reference"] == {k: version[k] for k in ("pipeline_id", "pipeline_version_id")}
    assert run["service_account"] == "erasediff"


def test_the_same_file_is_uploaded_once_and_every_profile_is_a_pipeline_of_its_own(kfp):
    hand_in(kfp)
    assert hand_in(kfp)["uploaded"] is False
    hand_in(kfp, profile="cpu")
    assert [p["display_name"] for p in kfp.pipelines] == ["erasediff-gpu", "erasediff-cpu"]
    assert (len(kfp.versions), len(kfp.experiments), len(kfp.runs)) == (2, 1, 3)


def test_another_content_is_another_version_of_the_same_pipeline(kfp, tmp_path):
    hand_in(kfp)
    asked = submission(Backend(host=kfp.host), "gpu", asked_of(3), CONFIG, POLICY, SIZE)
    script.answer(json.loads(asked.model_copy(update={"version": "sha256-other"}).canonical()))
    assert (len(kfp.pipelines), len(kfp.versions)) == (1, 2)
    assert kfp.runs[1]["pipeline_version_reference"]["pipeline_version_id"] == kfp.versions[1]["pipeline_version_id"]


def test_whoever_submits_at_the_same_time_gets_the_same_pipeline(kfp, monkeypatch):
    hand_in(kfp)
    found, looks = script.KubeflowClient.pipeline, iter([None])
    monkeypatch.setattr(script.KubeflowClient, "pipeline", lambda self: next(looks, found(self)))
    hand_in(kfp)
    assert len(kfp.pipelines) == 1
    assert any("already exists" in said for said in kfp.refusals)


# --- a schedule


def test_a_schedule_runs_one_at_a_time_makes_up_for_nothing_and_is_pinned(kfp):
    assert hand_in(kfp, NIGHTLY)["change"] == "created"
    (made,) = kfp.schedules
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    assert made["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert made["pipeline_version_reference"]["pipeline_version_id"] == kfp.versions[0]["pipeline_version_id"]


def test_the_same_schedule_again_changes_nothing(kfp):
    first = hand_in(kfp, NIGHTLY)
    before = kfp.changes()
    again = hand_in(kfp, "0  0 3 * * *")
    assert again == {"schedule_id": first["schedule_id"], "change": "unchanged"}
    assert kfp.changes() == before


@pytest.mark.parametrize(
    "change", [{"cron": "0 0 4 * * *"}, {"config": RunConfig(seed=1)}, {"service_account": "other"}], ids=["cron", "config", "account"]
)
def test_a_changed_schedule_replaces_the_old_one_and_never_runs_beside_it(kfp, change):
    old = hand_in(kfp, NIGHTLY)["schedule_id"]
    assert hand_in(kfp, **({"cron": NIGHTLY} | change))["change"] == "replaced"
    (made,) = kfp.schedules
    assert made["recurring_run_id"] != old
    assert made["mode"] == "ENABLE"
    assert kfp.most_enabled == 1


def test_another_profile_replaces_it_too_for_it_is_the_same_class(kfp):
    hand_in(kfp, NIGHTLY)
    assert hand_in(kfp, NIGHTLY, profile="cpu")["change"] == "replaced"
    assert len(kfp.schedules) == 1


def test_a_schedule_of_requests_is_handed_no_class_and_stands_beside_one_of_a_class(kfp):
    hand_in(kfp, cron="0 0 3 * * *")
    asked = submission(Backend(host=kfp.host), "gpu", None, CONFIG, POLICY, SIZE, "0 0 3 * * *")
    script.answer(json.loads(asked.canonical()))
    assert [s["runtime_config"]["parameters"]["request"] != "" for s in kfp.schedules] == [True, False]
    assert kfp.schedules[1]["display_name"] == "erase what is asked of digits"


def test_another_class_has_a_schedule_of_its_own(kfp):
    hand_in(kfp, NIGHTLY)
    assert hand_in(kfp, NIGHTLY, label=4)["change"] == "created"
    assert len(kfp.schedules) == 2


@pytest.mark.parametrize("operation", ["delete_schedule", "switch_schedule"])
def test_a_replacement_that_was_cut_short_is_finished_by_the_same_command(kfp, operation):
    hand_in(kfp, NIGHTLY)
    kfp.instead[operation] = Refused(503, "away")
    assert "answers 503" in refused(kfp, "0 0 4 * * *")
    assert sum(s["mode"] == "ENABLE" for s in kfp.schedules) <= 1
    del kfp.instead[operation]
    assert hand_in(kfp, "0 0 4 * * *")["change"] in ("replaced", "enabled")
    (left,) = kfp.schedules
    assert (left["mode"], left["trigger"]["cron_schedule"]["cron"]) == ("ENABLE", "0 0 4 * * *")
    assert kfp.most_enabled == 1


def test_a_schedule_that_somebody_switched_off_is_on_again(kfp):
    hand_in(kfp, NIGHTLY)
    kfp.schedules[0]["mode"] = "DISABLE"
    assert hand_in(kfp, NIGHTLY)["change"] == "enabled"


def test_duplicates_on_a_later_page_are_found():
    """Controls the paging: a duplicate beyond the first page would run beside its twin."""
    with FakeKfpApi(page=1) as fake:
        hand_in(fake, NIGHTLY)
        fake.schedules += [fake.schedules[0] | {"recurring_run_id": f"twin-{i}"} for i in range(3)]
        hand_in(fake, NIGHTLY)
        assert [s["recurring_run_id"] for s in fake.schedules] == [fake.schedules[0]["recurring_run_id"]]


# --- who asks, and who answers


def test_the_token_and_the_namespace_are_taken_where_they_are_needed(monkeypatch):
    with FakeKfpApi(token="t-1", multi_user=True) as fake:
        assert "refuses this user (401): set ERASEDIFF_KFP_TOKEN" in refused(fake)
        monkeypatch.setenv("ERASEDIFF_KFP_TOKEN", "t-1")
        assert "set your namespace with --namespace" in refused(fake)
        hand_in(fake, NIGHTLY, namespace="team-a")
        assert {p["namespace"] for p in [*fake.pipelines, *fake.experiments]} == {"team-a"}
        assert hand_in(fake, NIGHTLY, namespace="team-a")["change"] == "unchanged"


@pytest.mark.parametrize(
    ("operation", "answer", "sentence"),
    [
        ("health", Refused(403, "no"), "refuses this user (403)"),
        ("health", Refused(404, "page not found"), "has no API v2beta1 (404): give the address of a Kubeflow Pipelines 2"),
        ("health", b"<html>log in</html>", "no login page stands before it"),
        ("health", Refused(302, "elsewhere"), "wants a login (302)"),
        ("health", [1], "does not answer as Kubeflow Pipelines does"),
        ("health", Refused(502, "bad gateway"), "answers 502, bad gateway: try again later"),
        ("list_pipelines", b"<html>", "names no pipeline"),
        ("create_pipeline", {}, "names no pipeline"),
        ("create_experiment", {}, "names no experiment"),
        ("create_run", b"", "names no run"),
        ("create_run", {"created_at": "yesterday"}, "does not answer as Kubeflow Pipelines does"),
        ("create_run", Refused(400, "first\nsecond"), "answers 400, first second: check --host and the options."),
        ("upload_version", Refused(403, "no"), "refuses this user (403)"),
    ],
)
def test_no_answer_that_is_none_is_taken_for_a_run(kfp, operation, answer, sentence):
    if operation == "list_pipelines":
        kfp.instead["create_pipeline"] = answer
    kfp.instead[operation] = answer
    assert sentence in refused(kfp)
    assert kfp.runs == []


def test_the_command_line_submits_and_schedules(kfp, capsys, monkeypatch):
    monkeypatch.setenv("KFP_HOST", kfp.host + "/")
    assert main(["submit", "--forget-label", "3", "--profile", "cpu"]) == 0
    run, size = capsys.readouterr().out.splitlines()
    assert run.startswith(f"run {kfp.runs[0]['run_id']} of erasediff-cpu, version sha256-")
    assert size == "training steps: 1 CPU, 2Gi (from the model's 0.2 M parameters); --cpu and --memory change that."
    assert main(["schedule", "--cron", NIGHTLY, "--forget-label", "3", "--profile", "cpu"]) == 0
    assert "is created: erase class 3 of digits, 0 0 3 * * *" in capsys.readouterr().out
    scheduled, run = (one["runtime_config"]["parameters"] for one in (kfp.schedules[0], kfp.runs[0]))
    assert (scheduled["if_busy"], run["if_busy"]) == ("skip", "fail")
    assert scheduled | {"if_busy": "fail"} == run
    assert main(["submit", "--forget-label", "3", "--profile", "gpu", "--cpu", "500m", "--memory", "6Gi", "--gpus", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("training steps: 500m CPUs, 6Gi, 2 GPUs (as asked for)")
    sizes = [{name: value for name, value in r["runtime_config"]["parameters"].items() if name.startswith("training_")} for r in kfp.runs]
    assert sizes == [
        {"training_cpu": "1", "training_memory": "2Gi", "training_gpus": "0"},
        {"training_cpu": "500m", "training_memory": "6Gi", "training_gpus": "2"},
    ]


# --- what there is


def recorded(name):
    return json.loads((RECORDED / name).read_text())


def test_runs_and_schedules_are_listed_as_kubeflow_was_recorded_to_tell_them(kfp, capsys):
    hand_in(kfp)  # so that the experiment is there
    capsys.readouterr()
    kfp.instead["list_runs"] = {"runs": [recorded("run-failed.json"), recorded("run-succeeded.json")]}
    assert main(["runs", "--host", kfp.host]) == 0
    failed, succeeded = capsys.readouterr().out.splitlines()
    assert (
        failed == "364ba749-5aef-46b6-be9e-2ec1cee8e9f2  FAILED      erase class 1 of digits, since 2026-11-27 15:03 UTC, ended 2026-11-27 15:08 UTC"
    )
    assert "  SUCCEEDED   erase class 0 of digits, " in succeeded
    kfp.instead["list_schedules"] = recorded("recurring-runs.json")
    assert main(["schedules", "list", "--host", kfp.host]) == 0
    assert capsys.readouterr().out.startswith("060f9d70-78e7-4bee-8296-f880c286ec6c  paused  ")


def test_a_run_under_way_has_no_end_and_what_is_not_there_is_said(kfp, capsys):
    assert main(["runs", "--host", kfp.host]) == 0
    assert main(["schedules", "list", "--host", kfp.host]) == 0
    assert capsys.readouterr().out == "there are no runs in experiment 'erasediff'.\nthere are no schedules in experiment 'erasediff'.\n"
    hand_in(kfp)
    capsys.readouterr()
    assert main(["runs", "--host", kfp.host]) == 0
    assert capsys.readouterr().out == f"{kfp.runs[0]['run_id']}  PENDING     erase class 3 of digits, since 2026-01-01 00:00 UTC\n"


def test_a_schedule_is_paused_resumed_and_deleted_by_its_name_or_its_identifier(kfp, capsys):
    identifier = hand_in(kfp, NIGHTLY)["schedule_id"]
    hand_in(kfp, NIGHTLY, label=4)
    capsys.readouterr()
    modes = []
    for verb, name in (("pause", "erase class 3 of digits"), ("resume", identifier)):
        assert main(["schedules", verb, name, "--host", kfp.host]) == 0
        modes.append([made["mode"] for made in kfp.schedules])
    assert modes == [["DISABLE", "ENABLE"], ["ENABLE", "ENABLE"]], "control: the other one is as it was"
    assert main(["schedules", "delete", identifier, "--host", kfp.host]) == 0
    assert [made["display_name"] for made in kfp.schedules] == ["erase class 4 of digits"]
    assert capsys.readouterr().out.splitlines()[-1] == "delete: erase class 3 of digits"


def test_a_schedule_that_is_not_there_or_not_one_is_refused_and_nothing_changes(kfp, capsys):
    hand_in(kfp, NIGHTLY)
    kfp.schedules.append(kfp.schedules[0] | {"recurring_run_id": "another"})
    before = kfp.changes()
    for name, what in (("erase class 5 of digits", "no schedule"), ("erase class 3 of digits", "2 schedules")):
        assert main(["schedules", "delete", name, "--host", kfp.host]) == 2
        assert f"experiment 'erasediff' has {what} '{name}': take an identifier" in capsys.readouterr().err
    assert kfp.changes() == before


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_host_that_is_not_there_ends_in_a_sentence_and_says_no_token(capsys, monkeypatch):
    monkeypatch.setenv("ERASEDIFF_KFP_TOKEN", "t-secret")
    host = f"http://127.0.0.1:{free_port()}"
    assert main(["submit", "--host", host, "--forget-label", "3"]) == 2
    out, err = capsys.readouterr()
    assert err.strip().startswith(f"erasediff: {host} does not answer")
    assert err.strip().count("\n") == 0
    assert "t-secret" not in out + err


def test_a_host_that_accepts_and_never_answers_is_not_waited_for_long(capsys, monkeypatch):
    monkeypatch.setenv("ERASEDIFF_HTTP_TIMEOUT_SECONDS", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert main(["submit", "--host", f"http://127.0.0.1:{silent.getsockname()[1]}", "--forget-label", "3"]) == 2
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["submit"], "give --host"),
        (["submit", "--host", "kubeflow.example.org"], "has to be an address"),
        (["submit", "--host", "https://user:secret@kubeflow.example.org"], "without a user and a password"),
        (["submit", "--host", "{host}"], "no class to forget is given"),
        (["submit", "--host", "{host}", "--forget-label", "3", "--profile", "tpu"], "there is no profile 'tpu': choose one of cpu, gpu, gpu-multi"),
        (["submit", "--host", "{host}", "--forget-label", "zebra"], "class zebra is not in dataset digits"),
        (["submit", "--host", "{host}", "--namespace", "A B"], "field 'namespace'"),
        (["submit", "--host", "{host}", "--forget-label", "3", "--cpu", "two"], "has to be a number of CPUs such as 2, 0.5 or 500m"),
        (["submit", "--host", "{host}", "--forget-label", "3", "--memory", "0Gi"], "has to be an amount of memory such as 4Gi or 512Mi"),
        (["submit", "--host", "{host}", "--forget-label", "3", "--profile", "cpu", "--gpus", "1"], "profile 'cpu' has no GPUs: leave --gpus out"),
        (["submit", "--host", "{host}", "--forget-label", "3", "--gpus", "0"], "profile 'gpu' needs a GPU"),
        (["schedule", "--host", "{host}", "--requests", "--cron", "0 3 * * *"], "has 5 fields, and Kubeflow's has six"),
        (["schedule", "--host", "{host}", "--requests", "--cron", "0 0 25 * * *"], "(bad hour)"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_sent(kfp, capsys, arguments, sentence):
    assert main([a.format(host=kfp.host) for a in arguments]) == 2
    err = capsys.readouterr().err.strip()
    assert sentence in err
    assert err.count("\n") == 0
    assert "secret" not in err
    assert kfp.requests == []


def test_a_dataset_that_lies_on_the_cluster_alone_takes_a_list_of_its_classes(tmp_path):
    """Control: the position is that in the list, whose digest goes along."""
    config = RunConfig.parse({"dataset": {"kind": "folder", "path": "/workdir/images", "name": "images"}}, "test")
    with pytest.raises(BadInput, match="give --classes"):
        request_for(config, "cat", None)
    (tmp_path / "classes").write_text("dog\n2\ncat\n")
    listed = read_classes(tmp_path / "classes")
    found = request_for(config, " cat", listed)
    assert (found.dataset, found.position, found.classes_sha256) == ("images", 2, names_digest(("dog", "2", "cat")))
    assert request_for(config, "2", listed).position == 1, "a number is a name"
    with pytest.raises(BadInput, match="class 0 is not in dataset images: choose one of dog, 2, cat"):
        request_for(config, "0", listed)


# --- controls


def test_the_profiles_of_the_library_are_those_of_the_compiler():
    assert [profile.name for profile in tasks.PROFILES] == list(PROFILES)
    assert all(next(yaml.safe_load_all(shipped(f"pipelines/compiled/erasure-{p}.yaml").read_text()))["pipelineInfo"] for p in PROFILES)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/experiments?pagesize=3", None, 400),
        ("GET", "/secrets", None, 404),
        ("POST", "/runs", {"display_name": "x", "experimentID": "e"}, 400),
        ("POST", "/runs", {"display_name": 7}, 400),
        ("POST", "/runs", {"display_name": "x", "experiment_id": "nobody"}, 404),
        ("POST", "/recurringruns", {"display_name": "x", "mode": "ON"}, 400),
        ("POST", "/pipelines/upload_version?name=a&pipelineid=nobody", {}, 400),
    ],
)
def test_the_fake_refuses_what_the_real_one_would(kfp, method, path, body, status):
    """Control: a malformed request does not pass, so the requests of the client are not malformed."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{kfp.host}/apis/v2beta1{path}", data, {"Content-Type": "application/json"}, method=method)
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == status
    assert len(kfp.refusals) == 1
