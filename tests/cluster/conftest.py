"""A real cluster: the one of KUBECONFIG, or a one-node cluster that is built and started where the tool for it is at hand."""

from __future__ import annotations

import _socket
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from erasediff.cluster.api import CONFIG_MAP, DEPLOYMENT, POD, Cluster, Kind, Object
from erasediff.cluster.deadline import Deadline
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate
from erasediff.rollout.objects import ISSUER_CONFIG_MAP, ISSUER_KEY, PORT, selector
from erasediff.rollout.run import RollOut
from erasediff.rollout.store import Exported, store_for
from erasediff.serve.admission import check_servable
from tests.cluster.crds import without_empty_defaults
from tests.cluster.tier import HOW, missing, tool
from tests.exported import export_random
from tests.images.building import build
from tests.issuer import issuer_public
from tests.kubeflow.crd import FOLDER

ROOT = Path(__file__).parent.parent.parent
NAMESPACE, NODE, PERSISTENT_VOLUME = Kind("v1", "Namespace"), Kind("v1", "Node"), Kind("v1", "PersistentVolume")
ACCOUNT = Kind("v1", "ServiceAccount")


CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
INFERENCE_SERVICES = FOLDER / "serving.kserve.io_inferenceservices.yaml"
INFERENCE_SERVICES_NAME = "inferenceservices.serving.kserve.io"


def left_out(why: str) -> None:
    """Skip, or fail where somebody has asked for these tests by name."""
    if os.environ.get("ERASEDIFF_TEST_CLUSTER") == "required":
        pytest.fail(why)
    pytest.skip(why)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(3600))  # the first on a machine waits for the cluster's compilation and the images


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Pods are on this machine and not on its loopback, so what the other tests forbid is allowed here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _socket.socket.connect)
        yield


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """The cluster to use."""
    if os.environ.get("KUBECONFIG"):
        yield Path(os.environ["KUBECONFIG"])
        return
    if (why := missing(os.environ, is_root=os.geteuid() == 0)) is not None:
        left_out(f"{why}: {HOW}.")
    program = tool(os.environ)
    state = tempfile.mkdtemp(prefix="erasediff-", dir="/tmp")  # sockets need a short path
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONE_NODE_CLUSTER_DIR", f"{state}/c")
        subprocess.run([program, "build"], check=True)
        exports = subprocess.run([program, "up"], check=True, capture_output=True, text=True).stdout
        try:
            for entry in shlex.split(exports)[1:]:
                name, _, value = entry.partition("=")
                patch.setenv(name, value)
            yield Path(os.environ["KUBECONFIG"])
        finally:
            subprocess.run([program, "down"], check=False)
            shutil.rmtree(state, ignore_errors=True)


def image(role: str) -> str:
    """An image: one that is named, or the project's, built where the cluster's engine has it."""
    variable = f"ERASEDIFF_TEST_{role.upper()}_IMAGE"
    if named := os.environ.get(variable):
        return named
    if "DOCKER_HOST" not in os.environ:
        left_out(f"the cluster has no {role} image: set {variable} to one that its nodes have, or {HOW}.")
    return build(role)


@pytest.fixture(scope="session")
def serve_image(kubeconfig: Path) -> str:
    """What the pods of a roll-out run."""
    return image("serve")


@pytest.fixture(scope="session")
def pipeline_image(kubeconfig: Path) -> str:
    """What the pipeline's steps run in."""
    return image("pipeline")


@pytest.fixture(scope="session")
def versions(tiny_unet: Callable[..., torch.nn.Module], tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Exported]:
    """Two small models that were exported for real: the second has forgotten one label more."""
    folder = tmp_path_factory.mktemp("versions")
    export_random(folder / "1", tiny_unet, seed=1, epoch=1, forgotten=(8,))
    export_random(folder / "2", tiny_unet, seed=2, epoch=2, forgotten=(8, 3))
    return Exported.read(folder / "1"), Exported.read(folder / "2")


@pytest.fixture(scope="module")
def crd(kubeconfig: Path) -> Iterator[None]:
    """KServe's definition, where the cluster has none of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        with Cluster.connected("default") as cluster:
            if cluster.get(CRD, INFERENCE_SERVICES_NAME) is not None:
                pytest.skip("the cluster has KServe: a stand-in for its controller would disturb it.")
            if not INFERENCE_SERVICES.is_file():
                left_out(f"{INFERENCE_SERVICES.name} of KServe is not here: set ERASEDIFF_CRDS to a folder that has it.")
            cluster.create(CRD, without_empty_defaults(yaml.load(INFERENCE_SERVICES.read_text(), yaml.CSafeLoader)))

            def established(present: Any) -> bool | None:
                conditions = (present or {}).get("status", {}).get("conditions") or ()
                return True if any(c["type"] == "Established" and c["status"] == "True" for c in conditions) else None

            try:
                cluster.wait(CRD, INFERENCE_SERVICES_NAME, established, Deadline(60), "the CRD was not established")
                yield
            finally:
                cluster.delete(CRD, INFERENCE_SERVICES_NAME)
                cluster.wait(CRD, INFERENCE_SERVICES_NAME, lambda present: True if present is None else None, Deadline(60), "the CRD was not deleted")


@dataclass
class Place:
    """A namespace of its own, with what a roll-out needs in it."""

    cluster: Cluster
    settings: RollOutSettings

    def publish(self, exported: Exported) -> Candidate:
        return Candidate(store_for(self.settings.publish_to or "").publish(exported), exported.model)

    def address(self) -> str:
        """The canary's pod: these clusters have no Service addresses that this machine can reach."""
        pods = self.cluster.list(POD, selector(self.settings, "canary"))
        ready = [p for p in pods if not p["metadata"].get("deletionTimestamp") and p["status"].get("podIP")]
        return f"http://{ready[0]['status']['podIP']}:{PORT}"

    def roll_out(self, candidate: Candidate, address: Callable[[], str] | None = None, **settings: Any) -> str:
        changed = self.settings.model_copy(update=settings)
        return RollOut(self.cluster, changed, "one", check_servable, address or self.address).run(candidate)

    def stable(self) -> Object:
        found = self.cluster.get(DEPLOYMENT, self.settings.name)
        assert found is not None
        return found

    def served(self) -> set[str]:
        """The digests that the pods behind the stable Service say they serve."""
        import requests

        session = requests.Session()
        session.trust_env = False
        return {session.get(f"http://{ip}:{PORT}/served", timeout=10).json()["onnx_sha256"] for ip in addresses(self.cluster, self.settings.name)}

    def rules(self) -> str:
        found = self.cluster.get(CONFIG_MAP, "erasediff-serving")
        return "" if found is None else found["data"]["rules.yaml"]


def addresses(cluster: Cluster, service: str) -> list[str]:
    """The pods behind a Service, as a client that looks it up finds them."""
    found = cluster.get(Kind("v1", "Endpoints"), service) or {}
    return [address["ip"] for subset in found.get("subsets") or () for address in subset.get("addresses") or ()]


@contextmanager
def new_namespace(kubeconfig: Path) -> Iterator[Cluster]:
    """An empty namespace, removed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        with Cluster.connected(f"erasediff-test-{uuid.uuid4().hex[:8]}") as cluster:
            cluster.create(NAMESPACE, {"metadata": {"name": cluster.namespace}})
            try:
                # Pods are refused until the account that they get by default has its token.
                cluster.wait(ACCOUNT, "default", lambda found: found if found and found.get("secrets") else None, Deadline(60), "no account was made")
                yield cluster
            finally:
                cluster.delete(NAMESPACE, cluster.namespace)  # it takes its time, and the next test has another one


@contextmanager
def claim_over(cluster: Cluster, name: str, folder: Path, source: str = "hostPath", volume: str | None = None) -> Iterator[None]:
    """A claim over a folder of this machine, which is the node too.

    The kubelet gives a ``local`` volume to the group of a pod's ``fsGroup``, and leaves a ``hostPath`` as it is.
    """
    volume = volume or cluster.namespace
    hosts = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        source: {"path": str(folder)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": hosts}},
        "claimRef": {"namespace": cluster.namespace, "name": name},
    }
    cluster.create(PERSISTENT_VOLUME, {"metadata": {"name": volume}, "spec": spec})
    try:
        claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}}
        cluster.create(Kind("v1", "PersistentVolumeClaim"), {"metadata": {"name": name}, "spec": claim})
        yield
    finally:
        cluster.delete(PERSISTENT_VOLUME, volume)


def this_machine(cluster: Cluster) -> str:
    """The address at which pods reach this machine: the one from which it reaches their node."""
    node = cluster.list(NODE, {})[0]
    address = next(found["address"] for found in node["status"]["addresses"] if found["type"] == "InternalIP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # of a datagram socket, this asks for the route and sends nothing
        return str(probe.getsockname()[0])


@pytest.fixture
def namespace(kubeconfig: Path) -> Iterator[Cluster]:
    """An empty namespace."""
    with new_namespace(kubeconfig) as cluster:
        yield cluster


@pytest.fixture
def place(namespace: Cluster, serve_image: str, tmp_path: Path) -> Iterator[Place]:
    """A namespace with a service account, the issuer's public key, and a claim over a folder of this machine."""
    folder = tmp_path / "claim"
    folder.mkdir(mode=0o755)
    with claim_over(namespace, "models", folder):
        namespace.create(Kind("v1", "ServiceAccount"), {"metadata": {"name": "erasediff-serving"}})
        namespace.create(CONFIG_MAP, {"metadata": {"name": ISSUER_CONFIG_MAP}, "data": {ISSUER_KEY: issuer_public().read_text()}})
        yield Place(
            namespace,
            RollOutSettings(
                backend="deployment",
                namespace=namespace.namespace,
                publish_to=str(folder / "published"),
                claim="models",
                claim_mount=str(folder),
                image=serve_image,
                pull_policy="Never",
                replicas=1,
                share_seconds=1,
                timeout_seconds=240,
                smoke_seconds=20,
                drain_seconds=2,
                cpu="200m",  # of a busy machine, a smaller share starves
                memory="64Mi",
            ),
        )
