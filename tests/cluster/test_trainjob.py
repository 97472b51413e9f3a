"""TrainJobs on a real API server with Trainer's own CRD; a stand-in plays the status that its controller would write.

The CRD is installed if it is missing, and removed again if it was.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import kubernetes
import pytest
import yaml
from kubernetes.client import ApiException

from erasediff.cluster.answers import ConnectionLost, ObjectRejected, UnknownKind
from erasediff.cluster.api import POD, Cluster, Kind
from erasediff.errors import BadInput
from erasediff.trainjob import GROUP, RUNTIME, TRAINJOB, VERSION, ClusterTrainJobs, TrainJobFailed, job_name, run_to_end, torchrun_arguments, trainjob
from tests.cluster.conftest import left_out
from tests.cluster.crds import without_empty_defaults
from tests.kubeflow import crd
from tests.kubeflow.fake_trainer import COMPLETE, CRASHING, CREATED, FAILED, RUNNING, STARTING, SUSPENDED, runtime_with
from tests.kubeflow.test_trainjob import SETTINGS

PLURAL = "trainjobs"
CRD_NAME, SOON = f"{PLURAL}.{GROUP}", 60.0
NAME = job_name("b" * 64)
JOB = trainjob(NAME, torchrun_arguments("erase", "--workdir", "/workdir", "--run", "one"), SETTINGS)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about in {SOON:.0f} s"
        time.sleep(0.1)


def is_missing(look: Callable[[], object]) -> bool:
    try:
        look()
    except ApiException as error:
        if error.status == 404:
            return True
        raise
    return False


def is_discovered(api: kubernetes.client.ApiClient, namespace: str, kind: Kind = TRAINJOB) -> bool:
    cluster = Cluster(api, namespace)
    try:
        cluster.get(kind, NAME)
    except UnknownKind:
        return False
    finally:
        cluster.close()
    return True


@pytest.fixture(scope="module")
def api(kubeconfig: Path) -> kubernetes.client.ApiClient:
    return kubernetes.config.new_client_from_config(config_file=str(kubeconfig))


@contextmanager
def defined(api: kubernetes.client.ApiClient, name: str, file: Path) -> Iterator[None]:
    """A definition of Kubeflow Trainer's, installed where the cluster has none."""
    definitions = kubernetes.client.ApiextensionsV1Api(api)
    if not is_missing(lambda: definitions.read_custom_resource_definition(name)):
        yield
        return
    if not file.is_file():
        left_out(f"{file.name} of Kubeflow Trainer is not here: set ERASEDIFF_CRDS to a folder that has it.")
    definitions.create_custom_resource_definition(without_empty_defaults(yaml.safe_load(file.read_text())))
    try:
        yield
    finally:
        definitions.delete_custom_resource_definition(name)


@pytest.fixture(scope="module")
def namespace(api: kubernetes.client.ApiClient) -> Iterator[str]:
    """A namespace of its own, on a cluster that knows TrainJobs."""
    core, objects = kubernetes.client.CoreV1Api(api), kubernetes.client.CustomObjectsApi(api)
    with defined(api, CRD_NAME, crd.TRAINJOB):
        name = f"erasediff-trainjob-{uuid4().hex[:8]}"
        core.create_namespace({"metadata": {"name": name}})
        until(lambda: not is_missing(lambda: objects.list_namespaced_custom_object(GROUP, VERSION, name, PLURAL)), "the CRD")
        until(lambda: is_discovered(api, name), "the CRD's discovery")  # which lags behind
        yield name
        core.delete_namespace(name)


@pytest.fixture
def jobs(api: kubernetes.client.ApiClient, namespace: str) -> Iterator[ClusterTrainJobs]:
    found = ClusterTrainJobs(Cluster(api, namespace))
    yield found
    found.delete(NAME)
    until(lambda: found.find(NAME) is None, "the deletion")


@pytest.fixture
def stand_in(api: kubernetes.client.ApiClient, jobs: ClusterTrainJobs) -> Iterator[Callable[..., None]]:
    """Writes one status after another to the TrainJob, as Trainer's controller would."""
    objects, threads = kubernetes.client.CustomObjectsApi(api), []

    def play(*statuses: dict) -> None:
        def act() -> None:
            until(lambda: jobs.find(NAME) is not None, "the TrainJob")
            for status in statuses:
                objects.patch_namespaced_custom_object_status(GROUP, VERSION, jobs.namespace, PLURAL, NAME, {"status": status})

        threads.append(threading.Thread(target=act))
        threads[-1].start()

    yield play
    for thread in threads:
        thread.join(SOON)


def test_the_server_keeps_every_field_of_the_trainjob(jobs):
    """What the CRD does not know is pruned silently, and pods would come up without the workdir."""
    assert jobs.create(JOB) is True
    assert jobs.create(JOB) is False, "a second one of the same name"
    found = jobs.find(NAME)
    assert found is not None
    patches = [{k: v for k, v in patch.items() if k != "time"} for patch in found["spec"]["runtimePatches"]]
    assert patches == JOB["spec"]["runtimePatches"]
    assert found["spec"]["trainer"] == JOB["spec"]["trainer"]
    assert found["spec"]["runtimeRef"] == JOB["spec"]["runtimeRef"]


def test_a_trainer_of_another_version_is_told_and_nothing_is_left(jobs):
    """It has never heard of a field. Control: the TrainJob above, of which every field is known."""
    unheard = JOB | {"spec": JOB["spec"] | {"trainer": {**JOB["spec"]["trainer"], "unheardOf": {"a": 1}}}}
    with pytest.raises(BadInput, match=r"dropped spec\.trainer\.unheardOf of TrainJob .* is of another version"):
        jobs.create(unheard)
    until(lambda: jobs.find(NAME) is None, "the deletion")


def test_a_trainjob_of_the_wrong_shape_is_refused(jobs):
    """Control: the server holds documents against the CRD."""
    with pytest.raises(BadInput, match=r"refuses to create TrainJob .*\(422.*check image, resources"):
        jobs.create(JOB | {"spec": JOB["spec"] | {"activeDeadlineSeconds": "a day"}})


def test_it_is_waited_for_and_nothing_is_left(jobs, stand_in):
    stand_in(SUSPENDED, RUNNING, COMPLETE)
    run_to_end(jobs, JOB, SOON)
    until(lambda: jobs.find(NAME) is None, "the deletion")


def test_a_failure_is_quoted(jobs, stand_in):
    stand_in(RUNNING, FAILED)
    with pytest.raises(TrainJobFailed, match=r"failed \(DeadlineExceeded: TrainJob exceeded"):
        run_to_end(jobs, JOB, SOON)


def test_a_container_that_crashes_again_and_again_ends_the_job_with_its_last_words(jobs, stand_in, api, namespace, serve_image):
    """Trainer says "active" and never "failed" meanwhile. The pod is the node's own; a stand-in of JobSet gives it the label."""
    pods = kubernetes.client.CoreV1Api(api)
    script = "import sys; print('reading', file=sys.stderr); sys.exit('torchrun: error: ambiguous option')"
    container = {"name": "node", "image": serve_image, "imagePullPolicy": "Never", "command": ["python", "-c", script]}
    labels = {"jobset.sigs.k8s.io/jobset-name": NAME}
    pod = {"metadata": {"name": "crashing", "labels": labels}, "spec": {"restartPolicy": "OnFailure", "containers": [container]}}
    stand_in(*CRASHING)
    pods.create_namespaced_pod(namespace, pod)
    try:
        with pytest.raises(TrainJobFailed, match=r"was ended and deleted: pod crashing ended with exit code 1: torchrun: error: ambiguous option\.$"):
            run_to_end(jobs, JOB, 300)
    finally:
        pods.delete_namespaced_pod("crashing", namespace, grace_period_seconds=0)


LABELS = {"jobset.sigs.k8s.io/jobset-name": NAME}
POD_NAME = f"{NAME}-node-0-0-x"
CONTAINER = {"name": "node", "image": "none", "imagePullPolicy": "Never", "command": ["python", "-c", "import time; time.sleep(600)"]}


def with_volume(**source: object) -> dict:
    mount = {"name": "workdir", "mountPath": "/workdir"}
    return {"containers": [CONTAINER | {"volumeMounts": [mount]}], "volumes": [{"name": "workdir", **source}]}


def claimed(name: str) -> dict:
    return with_volume(persistentVolumeClaim={"claimName": name})


SECRET = {"name": "credentials", "key": "PASSWORD"}
ON_A_GPU = {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
STUCK = {
    "a variable of a key that the Secret lacks": (
        {"containers": [CONTAINER | {"env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": SECRET}}]}]},
        "waits: CreateContainerConfigError, couldn't find key PASSWORD in Secret .*/credentials",
    ),
    "a volume of a key that the Secret lacks": (
        with_volume(secret={"secretName": "credentials", "items": [{"key": "PASSWORD", "path": "p"}]}),
        "waits: FailedMount, .*references non-existent secret key: PASSWORD",
    ),
    "a claim on another node": (claimed("elsewhere"), "cannot be scheduled: .* volume node affinity conflict"),
    "a claim that is missing": (claimed("absent"), 'cannot be scheduled: .*persistentvolumeclaim "absent" not found'),
    "a GPU that no node has": ({"containers": [CONTAINER | {"resources": ON_A_GPU}]}, "cannot be scheduled: .*Insufficient nvidia.com/gpu"),
    "an image that is not there": ({"containers": [CONTAINER]}, "waits: ErrImageNeverPull, Container image .none. is not present"),
}


@pytest.fixture(scope="module")
def half_made(api: kubernetes.client.ApiClient, namespace: str) -> Iterator[None]:
    """A Secret that lacks a key, and a claim whose volume is on another node."""
    core = kubernetes.client.CoreV1Api(api)
    core.create_namespaced_secret(namespace, {"metadata": {"name": "credentials"}, "stringData": {"USER": "x"}})
    host = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["another-node"]}]}
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "local": {"path": "/tmp"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [host]}},
        "claimRef": {"namespace": namespace, "name": "elsewhere"},
    }
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": namespace, "resources": {"requests": {"storage": "1Gi"}}}
    core.create_persistent_volume({"metadata": {"name": namespace}, "spec": volume})
    core.create_namespaced_persistent_volume_claim(namespace, {"metadata": {"name": "elsewhere"}, "spec": claim})
    until(lambda: core.read_namespaced_persistent_volume_claim("elsewhere", namespace).status.phase == "Bound", "the claim")
    yield
    core.delete_persistent_volume(namespace)


@pytest.mark.parametrize("what", STUCK)
def test_a_pod_that_cannot_start_ends_the_job_with_the_clusters_own_words(jobs, stand_in, api, namespace, serve_image, half_made, monkeypatch, what):
    """The scheduler and the kubelet are real; a stand-in of JobSet makes the pod. Nothing is left."""
    monkeypatch.setattr("erasediff.cluster.pods._MINUTES", 3)
    monkeypatch.setattr("erasediff.cluster.pods._FOR_ROOM", 3)
    pods, (spec, sentence) = kubernetes.client.CoreV1Api(api), STUCK[what]
    if "Secret" in what:  # the kubelet looks for the image first
        spec = json.loads(json.dumps(spec).replace('"none"', json.dumps(serve_image)))
    stand_in(STARTING)
    pods.create_namespaced_pod(namespace, {"metadata": {"name": POD_NAME, "labels": LABELS}, "spec": {"restartPolicy": "OnFailure", **spec}})
    try:
        with pytest.raises(TrainJobFailed, match=rf"was ended and deleted: pod {POD_NAME} {sentence}") as ended:
            run_to_end(jobs, JOB, 120)
    finally:
        pods.delete_namespaced_pod(POD_NAME, namespace, grace_period_seconds=0)
        until(lambda: is_missing(lambda: pods.read_namespaced_pod(POD_NAME, namespace)), "the pod's deletion")
    assert "\n" not in str(ended.value)
    until(lambda: jobs.find(NAME) is None, "the deletion")


def test_a_quota_that_refuses_the_pods_of_a_job_ends_the_trainjob(jobs, stand_in, api, namespace, monkeypatch):
    """The TrainJob itself is let in, and its status says nothing; the Job's controller is real, and a stand-in of JobSet makes the Job."""
    monkeypatch.setattr("erasediff.trainjob._NOTHING_SECONDS", 5)
    core, batch = kubernetes.client.CoreV1Api(api), kubernetes.client.BatchV1Api(api)
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "none-left"}, "spec": {"hard": {"pods": "0"}}})
    until(lambda: core.read_namespaced_resource_quota("none-left", namespace).status.hard is not None, "the quota")
    pod = {"metadata": {"labels": LABELS}, "spec": {"restartPolicy": "OnFailure", "containers": [CONTAINER]}}
    stand_in(CREATED)
    threading.Timer(2, lambda: batch.create_namespaced_job(namespace, {"metadata": {"name": f"{NAME}-node-0"}, "spec": {"template": pod}})).start()
    try:
        with pytest.raises(TrainJobFailed, match=r"had no pods for 0 minutes and was deleted: Error creating: pods .* exceeded quota: none-left, "):
            run_to_end(jobs, JOB, SOON)
    finally:
        batch.delete_namespaced_job(f"{NAME}-node-0", namespace, propagation_policy="Background")
        core.delete_namespaced_resource_quota("none-left", namespace)


def test_a_runtime_without_the_container_is_told_before_anything_is_made(jobs, stand_in, api):
    """As Trainer's own definition takes it. Control: with the container the TrainJob is made."""
    objects, plural = kubernetes.client.CustomObjectsApi(api), "clustertrainingruntimes"
    with defined(api, f"{plural}.{GROUP}", crd.FOLDER / f"{GROUP}_{plural}.yaml"):
        until(lambda: not is_missing(lambda: objects.list_cluster_custom_object(GROUP, VERSION, plural)), "the CRD")
        until(lambda: is_discovered(api, jobs.namespace, RUNTIME), "the CRD's discovery")
        made = runtime_with("trainer")
        objects.create_cluster_custom_object(GROUP, VERSION, plural, made)
        fresh = ClusterTrainJobs(Cluster(api, jobs.namespace))
        with pytest.raises(BadInput, match="ClusterTrainingRuntime torch-distributed has no container 'node' in a job 'node'"):
            run_to_end(fresh, JOB, SOON)
        assert jobs.find(NAME) is None
        objects.replace_cluster_custom_object(
            GROUP,
            VERSION,
            plural,
            "torch-distributed",
            runtime_with("node") | {"metadata": objects.get_cluster_custom_object(GROUP, VERSION, plural, "torch-distributed")["metadata"]},
        )
        stand_in(COMPLETE)
        run_to_end(fresh, JOB, SOON)


def test_a_webhook_that_is_down_is_told_and_nothing_is_made(jobs, api, namespace, monkeypatch):
    """As the API server says it."""
    monkeypatch.setattr("erasediff.trainjob._NOTHING_SECONDS", 2)
    hooks, name = kubernetes.client.AdmissionregistrationV1Api(api), f"down.{namespace}.example.org"
    rule = {"apiGroups": [GROUP], "apiVersions": [VERSION], "operations": ["CREATE"], "resources": [PLURAL]}
    hook = {
        "name": name,
        "clientConfig": {"url": "https://127.0.0.1:1/validate"},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "namespaceSelector": {"matchExpressions": [{"key": "down", "operator": "Exists"}]},
    }
    kubernetes.client.CoreV1Api(api).patch_namespace(namespace, {"metadata": {"labels": {"down": "yes"}}})
    hooks.create_validating_webhook_configuration({"metadata": {"name": name}, "webhooks": [hook]})
    try:
        time.sleep(2)  # the API server reads them anew once a second, and says nowhere that it has
        with pytest.raises(ConnectionLost, match=r"answers 500 \(.*failed calling webhook .*\) when asked to create TrainJob .*: run again later"):
            run_to_end(jobs, JOB, SOON)
        assert jobs.find(NAME) is None
    finally:
        hooks.delete_validating_webhook_configuration(name)
        time.sleep(2)


def lets_in(core: kubernetes.client.CoreV1Api, namespace: str, pod: dict) -> bool:
    """Whether admission takes a pod; nothing is made."""
    try:
        core.create_namespaced_pod(namespace, pod, dry_run="All")
    except ApiException:
        return False
    return True


def test_a_quota_and_a_limit_that_refuse_a_pod_are_not_taken_for_a_role(api, namespace):
    """As the API server's own admission says it. Control: without them the pod is let in."""
    core, cluster = kubernetes.client.CoreV1Api(api), Cluster(api, namespace)
    resources = {"requests": {"cpu": "2"}, "limits": {"cpu": "4"}}
    pod = {"metadata": {"name": "large"}, "spec": {"containers": [{"name": "c", "image": "none", "resources": resources}]}}
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "1"}}})
    until(lambda: core.read_namespaced_resource_quota("small", namespace).status.hard is not None, "the quota")
    with pytest.raises(
        ObjectRejected, match=r"the ResourceQuota small leaves no room to create Pod .*/large \(403: requested: requests.cpu=2, used: "
    ):
        cluster.create(POD, pod)
    core.delete_namespaced_resource_quota("small", namespace)
    limits = {"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}
    core.create_namespaced_limit_range(namespace, limits)
    until(lambda: not lets_in(core, namespace, pod), "the limit")  # admission has the old answer for a moment
    with pytest.raises(ObjectRejected, match=r"refuses to create Pod .*maximum cpu usage per Container is 1, but limit is 4"):
        cluster.create(POD, pod)
    core.delete_namespaced_limit_range("small", namespace)
    until(lambda: lets_in(core, namespace, pod), "the limit's end")
    cluster.create(POD, pod)
    cluster.delete(POD, "large")


def test_a_service_account_without_the_role_is_told_which_one_it_needs(kubeconfig, namespace, jobs):
    api = kubernetes.config.new_client_from_config(config_file=str(kubeconfig))
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:default")
    nobody = ClusterTrainJobs(Cluster(api, namespace))
    with pytest.raises(BadInput, match=f"no Role allows this account to read TrainJob {namespace}/.*: apply the Role"):
        run_to_end(nobody, JOB, SOON)
    assert jobs.find(NAME) is None
