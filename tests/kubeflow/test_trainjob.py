"""``erase`` as a TrainJob: the real ``kubernetes`` client before a fake of the API and of Trainer's controller."""

import json
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import kubernetes
import pytest
import yaml
from torch.distributed.run import get_args_parser

from erasediff.cluster.answers import ConnectionLost
from erasediff.cluster.api import Cluster
from erasediff.errors import BadInput
from erasediff.records.sizes import TrainingSize
from erasediff.records.trainjob import SETTINGS_VARIABLE, TrainJobSettings
from erasediff.steps.table import step_named
from erasediff.trainjob import ClusterTrainJobs, TrainJobFailed, job_name, run_to_end, torchrun_arguments, trainjob
from pipelines.compile import COMPILED
from pipelines.tasks import PROFILES, trainjob_settings
from tests.kubeflow import crd
from tests.kubeflow.fake_trainer import COMPLETE, CRASHING, CREATED, CREATED_JOB, FAILED, RECORDED, RUNNING, STARTING, SUSPENDED, FakeTrainerApi
from tests.kubeflow.server import Refused
from tests.manifests.built import built, of_kind

MULTI = next(p for p in PROFILES if p.erasing_nodes)
SETTINGS = TrainJobSettings.parse(trainjob_settings(MULTI, step_named("erase")) | {"size": MULTI.training.model_dump()}, "the profile")
NAME = job_name("a" * 64)
COMMAND = ("erase", "--workdir", "/workdir", "--run", "one")
JOB = trainjob(NAME, torchrun_arguments(*COMMAND), SETTINGS)
SOON = 20.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Look as often, and pause less in between."""
    monkeypatch.setattr("erasediff.trainjob._POLL_SECONDS", 0.05)
    monkeypatch.setattr("erasediff.trainjob._FIRST_POLL_SECONDS", 0.05)


def client_of(fake: FakeTrainerApi) -> ClusterTrainJobs:
    configuration = kubernetes.client.Configuration(host=fake.host)
    return ClusterTrainJobs(Cluster(kubernetes.client.ApiClient(configuration), "erasure"))


def run(fake: FakeTrainerApi, deadline: float = SOON) -> None:
    with fake:
        run_to_end(client_of(fake), JOB, deadline)


def test_the_trainjob_follows_its_crd():
    assert crd.problems(JOB, crd.schema()) == []
    assert len(NAME) <= 63
    assert NAME[0].isalpha()


@pytest.mark.parametrize(
    "break_it",
    [lambda spec: spec["trainer"].update(nodes=2), lambda spec: spec.pop("runtimeRef"), lambda spec: spec.update(activeDeadlineSeconds="1h")],
)
def test_the_crd_can_refuse(break_it):
    """Control: an unknown field, a missing one and a wrong type are seen."""
    broken = yaml.safe_load(yaml.safe_dump(JOB))
    break_it(broken["spec"])
    assert len(crd.problems(broken, crd.schema())) == 1


def test_a_gpu_is_asked_for_with_the_toleration_that_reaches_its_node_and_the_labels_that_the_network_policy_selects():
    assert JOB["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "2"
    template = JOB["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in template["spec"]["tolerations"]
    assert any(volume.get("emptyDir", {}).get("medium") == "Memory" for volume in template["spec"]["volumes"])
    policy = of_kind(built("overlays/prod-kubeflow"), "NetworkPolicy")["erasediff-training"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def every_option():
    """Every option that torchrun knows: the step may have one of the same name, or of an abbreviation."""
    options = {option for action in get_args_parser()._actions for option in action.option_strings if option.startswith("--")}
    return sorted({shorter for option in options for shorter in (option, option[:-1], option[:5])})


def test_torchrun_takes_the_command_and_leaves_the_steps_options_to_the_step():
    """By torch's own parser. Control: without ``--`` it takes ``--run`` for its own ``--run-path``."""
    trainer = JOB["spec"]["trainer"]
    assert trainer["command"] == ["torchrun"]
    taken = get_args_parser().parse_args(trainer["args"])
    assert (taken.module, taken.training_script, taken.training_script_args) == (True, "erasediff", list(COMMAND))
    for option in every_option():
        taken = get_args_parser().parse_args(torchrun_arguments("erase", option, "x"))
        assert taken.training_script_args == ["erase", option, "x"]
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["-m", "erasediff", *COMMAND])


def test_no_secret_is_written_out():
    trainer = JOB["spec"]["trainer"]
    secrets = {e["name"] for e in trainer["env"] if "secretKeyRef" in e.get("valueFrom", {})}
    assert secrets == set(SETTINGS.credentials.keys)
    assert not any("value" in e for e in trainer["env"] if e["name"] in secrets)


def test_the_compiled_profile_carries_settings_that_the_library_reads(monkeypatch):
    spec = next(yaml.safe_load_all((COMPILED / "erasure-gpu-multi.yaml").read_text()))
    values = {e["name"]: e["value"] for e in spec["deploymentSpec"]["executors"]["exec-erase"]["container"]["env"]}
    monkeypatch.setenv(SETTINGS_VARIABLE, values[SETTINGS_VARIABLE])
    assert TrainJobSettings.from_environment(MULTI.training) == SETTINGS
    smaller = TrainJobSettings.from_environment(TrainingSize(cpu="3", memory="9Gi", gpus=1))
    trainer = trainjob(NAME, [], smaller)["spec"]["trainer"]
    assert trainer["resourcesPerNode"]["requests"] == {"cpu": "3", "memory": "9Gi", "nvidia.com/gpu": "1"}, "the run's parameters count"
    assert trainer["numProcPerNode"] == 1
    assert spec["deploymentSpec"]["executors"]["exec-erase"]["container"]["image"] == SETTINGS.image, "the same image waits and trains"


def test_it_is_made_waited_for_and_deleted():
    fake = FakeTrainerApi(SUSPENDED, CREATED, CREATED_JOB, STARTING, RUNNING, COMPLETE)
    run(fake)
    assert (fake.deleted, fake.jobs, fake.refusals[1:]) == ([NAME], {}, [])
    assert [m for m, _ in fake.requests].count("POST") == 1


def test_one_that_is_there_is_waited_for_and_not_made_again():
    fake = FakeTrainerApi(RUNNING, COMPLETE)
    fake.add(JOB)
    run(fake)
    assert "POST" not in [m for m, _ in fake.requests]
    assert fake.deleted == [NAME]


def test_two_pods_that_make_it_at_once_both_wait_for_the_same():
    fake = FakeTrainerApi(RUNNING, COMPLETE)
    with fake:
        jobs = client_of(fake)
        assert jobs.create(JOB) is True
        assert jobs.create(JOB) is False


def test_one_that_goes_away_from_an_earlier_try_is_followed_by_another():
    fake = FakeTrainerApi(COMPLETE)
    fake.add(JOB | {"metadata": JOB["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, FAILED)
    run(fake)
    assert [m for m, _ in fake.requests].count("POST") == 1


def test_a_failure_is_quoted_in_one_sentence_and_nothing_is_left():
    fake = FakeTrainerApi(RUNNING, FAILED)
    with pytest.raises(TrainJobFailed, match=r"^TrainJob erase-a+ failed \(DeadlineExceeded: TrainJob exceeded its active deadline\)\.$"):
        run(fake)
    assert fake.deleted == [NAME]


def crashing(times: int, *, log: str | None = None) -> FakeTrainerApi:
    """A TrainJob whose container was restarted so often, as Trainer and the kubelet were recorded to say it."""
    fake = FakeTrainerApi(*CRASHING)
    pod = json.loads((RECORDED / "pod-crashing.json").read_text())
    pod["status"]["containerStatuses"][0]["restartCount"] = times
    fake.pods = [pod]
    if log is not None:
        fake.logs[pod["metadata"]["name"]] = log
    return fake


def test_a_container_that_crashes_again_and_again_ends_the_job_early_with_its_last_words():
    """The TrainJob itself says "active" for as long as a Job's back-off lasts."""
    fake = crashing(3, log="usage: torchrun\ntorchrun: error: ambiguous option: --run\n")
    with pytest.raises(TrainJobFailed, match=r"was ended and deleted: pod .* ended with exit code 1: torchrun: error: ambiguous option: --run\.$"):
        run(fake)
    assert fake.deleted == [NAME]


def test_a_crash_is_told_where_the_log_may_not_be_read():
    with pytest.raises(TrainJobFailed, match=r"ended with exit code 1: Error\.$"):
        run(crashing(3))


def test_control_a_container_that_crashed_once_goes_on():
    """A worker whose peer was evicted crashes, is started again, and continues from its checkpoint."""
    fake = crashing(1)
    fake.transitions = [RUNNING, RUNNING, COMPLETE]
    run(fake)
    assert fake.deleted == [NAME]


@pytest.mark.parametrize(("seconds", "ended"), [(3600, True), (60, False)])
def test_an_image_that_cannot_be_pulled_ends_the_job_after_ten_minutes(seconds, ended):
    since = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
    waiting = {"name": "node", "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}
    fake = FakeTrainerApi(STARTING, STARTING, COMPLETE)
    fake.pods = [{"metadata": {"name": "p"}, "status": {"startTime": since, "containerStatuses": [waiting]}}]
    with pytest.raises(TrainJobFailed, match="pod p waits: ImagePullBackOff, Back-off pulling image") if ended else nullcontext():
        run(fake)
    assert fake.deleted == [NAME]


def test_one_that_never_starts_ends_at_the_deadline_and_is_deleted():
    """A queue without GPUs must not hold a pipeline for ever."""
    fake, started = FakeTrainerApi(SUSPENDED), time.monotonic()
    with pytest.raises(TrainJobFailed, match=r"is suspended \(Queued\) after 0 minutes and was deleted"):
        run(fake, deadline=0.3)
    assert fake.deleted == [NAME]
    assert time.monotonic() - started < SOON


def test_one_that_somebody_deletes_is_a_failure_and_not_made_again():
    fake = FakeTrainerApi(RUNNING, RUNNING)
    jobs = client_of(fake)
    look = jobs.find

    def find(name):
        if not fake.transitions:
            fake.jobs.clear()
        return look(name)

    jobs.find = find
    with fake, pytest.raises(TrainJobFailed, match="was deleted while it ran"):
        run_to_end(jobs, JOB, SOON)


def test_a_server_that_is_away_for_a_moment_is_waited_for():
    fake = FakeTrainerApi(RUNNING, COMPLETE)
    fake.troubles = [503, 429, 500]
    run(fake)
    assert fake.deleted == [NAME]


@pytest.mark.parametrize("answered", range(8))
def test_whichever_request_the_server_is_away_for_it_is_not_taken_for_a_cluster_without_trainer(answered):
    """The client's discovery takes 503 for a group without kinds."""
    fake = FakeTrainerApi(RUNNING, COMPLETE)
    answer = fake.answer

    def away(*request):
        if answered < len(fake.requests) <= answered + 3:
            raise Refused(503, "the server is currently unable to handle the request")
        return answer(*request)

    fake.answer = away
    run(fake)
    assert fake.deleted == [NAME]


def test_a_server_that_stays_away_is_named():
    fake = FakeTrainerApi()
    with fake:
        jobs = client_of(fake)
    with pytest.raises(ConnectionLost, match="the API server does not answer"):
        run_to_end(jobs, JOB, 0.2)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, r"refuses the credentials \(401\)"),
        (400, "refuses .* check image"),
    ],
)
def test_a_refusal_ends_at_once(status, sentence):
    fake = FakeTrainerApi(COMPLETE)
    fake.troubles = [status]
    with pytest.raises(BadInput, match=sentence):
        run(fake)
    assert len(fake.requests) == 1


def test_a_cluster_without_trainer_is_said_to_have_none():
    fake = FakeTrainerApi()
    fake.groups = {}
    with pytest.raises(BadInput, match="has no TrainJobs: install Kubeflow Trainer"):
        run(fake)


def test_the_fake_refuses_what_the_crd_does_not_allow():
    """Control: a malformed TrainJob does not get through the client and the fake."""
    fake = FakeTrainerApi(COMPLETE)
    broken = json.loads(json.dumps(JOB))
    broken["spec"]["trainer"]["gpus"] = 2
    with fake, pytest.raises(BadInput, match=r"refuses to create TrainJob .*\(422.*check image, resources and runtime"):
        run_to_end(client_of(fake), broken, SOON)
    assert "gpus" in fake.refusals[-1]
