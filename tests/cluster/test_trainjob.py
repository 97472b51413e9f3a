"""TrainJobs on a real API server with Trainer's own CRD; a stand-in plays the status that its controller would write.

The CRD is installed if it is missing, and removed again if it was.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import kubernetes
import pytest
import yaml
from kubernetes.client import ApiException

from erasediff.cluster.answers import ObjectRejected, UnknownKind
from erasediff.cluster.api import POD, Cluster
from erasediff.errors import BadInput
from erasediff.trainjob import GROUP, TRAINJOB, VERSION, ClusterTrainJobs, TrainJobFailed, job_name, run_to_end, torchrun_arguments, trainjob
from tests.cluster.conftest import left_out
from tests.cluster.crds import without_empty_defaults
from tests.kubeflow import crd
from tests.kubeflow.fake_trainer import COMPLETE, CRASHING, FAILED, RUNNING, SUSPENDED
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


def is_discovered(api: kubernetes.client.ApiClient, namespace: str) -> bool:
    cluster = Cluster(api, namespace)
    try:
        cluster.get(TRAINJOB, NAME)
    except UnknownKind:
        return False
    finally:
        cluster.close()
    return True


@pytest.fixture(scope="module")
def api(kubeconfig: Path) -> kubernetes.client.ApiClient:
    return kubernetes.config.new_client_from_config(config_file=str(kubeconfig))


@pytest.fixture(scope="module")
def namespace(api: kubernetes.client.ApiClient) -> Iterator[str]:
    """A namespace of its own, on a cluster that knows TrainJobs."""
    definitions, core = kubernetes.client.ApiextensionsV1Api(api), kubernetes.client.CoreV1Api(api)
    objects = kubernetes.client.CustomObjectsApi(api)
    installed = is_missing(lambda: definitions.read_custom_resource_definition(CRD_NAME))
    if installed and not crd.TRAINJOB.is_file():
        left_out(f"{crd.TRAINJOB.name} of Kubeflow Trainer is not here: set ERASEDIFF_CRDS to a folder that has it.")
    if installed:
        definitions.create_custom_resource_definition(without_empty_defaults(yaml.safe_load(crd.TRAINJOB.read_text())))
    name = f"erasediff-trainjob-{uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    until(lambda: not is_missing(lambda: objects.list_namespaced_custom_object(GROUP, VERSION, name, PLURAL)), "the CRD")
    until(lambda: is_discovered(api, name), "the CRD's discovery")  # which lags behind
    yield name
    core.delete_namespace(name)
    if installed:
        definitions.delete_custom_resource_definition(CRD_NAME)


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
    with pytest.raises(ObjectRejected, match=r"refuses to create Pod .*maximum cpu usage per Container is 1, but limit is 4"):
        cluster.create(POD, pod)
    core.delete_namespaced_limit_range("small", namespace)
    cluster.create(POD, pod)
    cluster.delete(POD, "large")


def test_a_service_account_without_the_role_is_told_which_one_it_needs(kubeconfig, namespace, jobs):
    api = kubernetes.config.new_client_from_config(config_file=str(kubeconfig))
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:default")
    nobody = ClusterTrainJobs(Cluster(api, namespace))
    with pytest.raises(BadInput, match=f"no Role allows this account to read TrainJob {namespace}/.*: apply the Role"):
        run_to_end(nobody, JOB, SOON)
    assert jobs.find(NAME) is None
