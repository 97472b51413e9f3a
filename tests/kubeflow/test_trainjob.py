"""``erase`` as a TrainJob: the real ``kubernetes`` client before a fake of the API and of Trainer's controller."""

import json
import os
import signal
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial

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
from erasediff.stopping import Stopped
from erasediff.trainjob import ClusterTrainJobs, TrainJobFailed, job_name, run_to_end, torchrun_arguments, trainjob
from pipelines.compile import COMPILED
from pipelines.tasks import PROFILES, trainjob_settings
from tests.kubeflow import crd
from tests.kubeflow.fake_trainer import (
    COMPLETE,
    CRASHING,
    CREATED,
    CREATED_JOB,
    FAILED,
    RECORDED,
    RUNNING,
    STARTING,
    SUSPENDED,
    FakeTrainerApi,
    runtime_with,
)
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


def test_a_step_that_is_terminated_takes_its_trainjob_with_it(monkeypatch):
    """A run that somebody ends must not hold GPUs for a day. Control: without the signal it is waited for to its end, as above."""
    fake, before = FakeTrainerApi(SUSPENDED, CREATED, RUNNING), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("erasediff.trainjob.time.sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match=f"the erasure was terminated, and TrainJob {NAME} was deleted"):
        run(fake)
    assert (fake.deleted, fake.jobs) == ([NAME], {})
    assert signal.getsignal(signal.SIGTERM) == before


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


def ago(seconds: int) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")


def waiting_pod(seconds: int, **waiting: str) -> dict:
    """A pod that has been on its node for so long."""
    container = {"name": "node", "restartCount": 0, "state": {"waiting": waiting}}
    return {"metadata": {"name": f"{NAME}-node-0-0-x"}, "status": {"startTime": ago(seconds), "containerStatuses": [container]}}


def pending_pod(seconds: int, message: str) -> dict:
    """A pod that no node takes."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": ago(seconds), "message": message}
    return {"metadata": {"name": f"{NAME}-node-0-0-x"}, "status": {"conditions": [condition]}}


def event(seconds: int, kind: str, reason: str, message: str, about: str = f"{NAME}-node-0-0-x") -> dict:
    """An event that was seen so long ago."""
    return {"type": kind, "reason": reason, "message": message, "lastTimestamp": ago(seconds), "involvedObject": {"name": about}, "metadata": {}}


# In Kubernetes' words. The first is what a ReadWriteOnce claim of the waiting step's pod says on another node: one node has no other, so it was not
# recorded. What the kubelet and the scheduler say of the others is asked of real ones in tests/cluster/test_trainjob.py.
ELSEWHERE = event(30, "Warning", "FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) erase-1')
ALSO = event(10, "Warning", "FailedMount", "Unable to attach or mount volumes: unmounted volumes=[workdir]: timed out waiting for the condition")
MOUNTED = event(5, "Normal", "SuccessfulAttachVolume", 'AttachVolume.Attach succeeded for volume "pvc-1"')
CONFLICT = "0/2 nodes are available: 2 node(s) had volume node affinity conflict."
NO_ROOM = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had volume node affinity conflict."
NO_KEY = {"reason": "CreateContainerConfigError", "message": "couldn't find key PASSWORD in Secret erasure/credentials"}
PULL = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
SILENT = {"reason": "ContainerCreating"}


@pytest.mark.parametrize(
    ("pod", "events", "sentence"),
    [
        (partial(waiting_pod, 3600, **PULL), [], "waits: ImagePullBackOff, Back-off pulling image"),
        (partial(waiting_pod, 60, **PULL), [], None),
        (partial(waiting_pod, 5, **NO_KEY), [], "waits: CreateContainerConfigError, couldn't find key PASSWORD in Secret erasure/credentials"),
        (partial(waiting_pod, 3600, **SILENT), [ELSEWHERE, ALSO], "waits: FailedAttachVolume, Multi-Attach error for volume .* already used by pod"),
        (partial(waiting_pod, 60, **SILENT), [ELSEWHERE, ALSO], None),
        (partial(waiting_pod, 3600, **SILENT), [ELSEWHERE, ALSO, MOUNTED], None),
        (partial(waiting_pod, 3600, **SILENT), [event(1, "Warning", "FailedMount", "of another pod", "other")], None),
        (partial(waiting_pod, 3600, **SILENT), None, None),
        (partial(pending_pod, 900, CONFLICT), [], "cannot be scheduled: .* volume node affinity conflict"),
        (partial(pending_pod, 60, CONFLICT), [], None),
        (partial(pending_pod, 900, NO_ROOM), [], None),
        (partial(pending_pod, 2 * 3600, NO_ROOM), [], "cannot be scheduled: .* Insufficient nvidia.com/gpu"),
    ],
    ids=[
        *("no image", "no image yet", "a Secret without the key", "a volume that is attached elsewhere", "not yet", "attached in the end"),
        *("another pod's", "events that may not be read", "a volume of another node", "not for long", "no room yet", "no room"),
    ],
)
def test_a_pod_that_cannot_start_ends_the_job_within_minutes_and_says_why(pod, events, sentence):
    """Ten minutes where somebody may cure it, an hour where a node may come. Controls: those that are not waited for long enough, or went well."""
    fake = FakeTrainerApi(STARTING, STARTING, COMPLETE)
    fake.pods, fake.events = [pod()], events  # made now: how long it has waited counts from here
    with pytest.raises(TrainJobFailed, match=f"was ended and deleted: pod .* {sentence}") if sentence else nullcontext():
        run(fake)
    assert fake.deleted == [NAME]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([event(2, "Warning", "FailedCreate", "Error creating: exceeded quota: small", f"{NAME}-node-0")], ": Error creating: exceeded quota: small"),
        ([event(2, "Warning", "TrainJobResourcesCreationFailed", 'no matches for kind "JobSet"', NAME)], ': no matches for kind "JobSet"'),
        ([event(2, "Warning", "Failed", "of another", f"{NAME}2-node-0")], r", and no event says why: check .* controllers run"),
    ],
)
def test_a_job_that_gets_no_pods_is_not_waited_for_all_day(monkeypatch, events, why):
    """A quota refuses the pods of a Job, a webhook those of a JobSet, or a controller is away: the TrainJob has no condition."""
    monkeypatch.setattr("erasediff.trainjob._NOTHING_SECONDS", 0.2)
    fake = FakeTrainerApi(CREATED)
    fake.events = events
    with pytest.raises(TrainJobFailed, match=f"had no pods for 0 minutes and was deleted{why}"):
        run(fake)
    assert fake.deleted == [NAME]


def test_control_a_job_that_is_suspended_or_has_pods_is_not_one_that_gets_none(monkeypatch):
    monkeypatch.setattr("erasediff.trainjob._NOTHING_SECONDS", 0.2)
    for status, pods in ((SUSPENDED, []), (RUNNING, [{"metadata": {"name": "p"}}])):
        fake = FakeTrainerApi(*[status] * 10, COMPLETE)
        fake.pods = pods
        run(fake)
        assert fake.deleted == [NAME]


@pytest.mark.parametrize("runtime", [runtime_with("trainer"), runtime_with("node", job="worker")])
def test_a_runtime_without_the_container_is_told_before_anything_is_made(runtime):
    """Trainer leaves out what it finds no place for: the pods would come up without the workdir. Control: a Role that does not tell."""
    fake = FakeTrainerApi(COMPLETE)
    fake.runtime = runtime
    with pytest.raises(BadInput, match=r"^ClusterTrainingRuntime torch-distributed has no container 'node' in a job 'node': install .*\.$"):
        run(fake)
    assert "POST" not in [m for m, _ in fake.requests]
    unseen = FakeTrainerApi(COMPLETE)
    unseen.runtime = None
    run(unseen)
    assert unseen.deleted == [NAME]


def test_a_webhook_that_is_down_is_told_after_minutes_and_not_after_a_day(monkeypatch):
    """Nothing is made. Control: once the TrainJob is there, the API server may be away for as long as it takes."""
    monkeypatch.setattr("erasediff.trainjob._NOTHING_SECONDS", 0.2)
    fake = FakeTrainerApi(COMPLETE)

    def down(document):
        raise Refused(500, 'Internal error occurred: failed calling webhook "validator.trainjob.trainer.kubeflow.org": connection refused')

    fake._create = down
    with pytest.raises(ConnectionLost, match=r"answers 500 \(.*failed calling webhook .*: run again later"):
        run(fake)
    assert fake.jobs == {}
    there = FakeTrainerApi(RUNNING, COMPLETE)
    there.add(JOB)
    with there:
        jobs = client_of(there)
        jobs.find(NAME)
        there.transitions, there.troubles = [RUNNING, COMPLETE], [503] * 10
        run_to_end(jobs, JOB, SOON)
    assert there.deleted == [NAME]


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
