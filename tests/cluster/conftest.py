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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from erasediff.records.settings import RollOutSettings
from erasediff.rollout.cluster import CONFIG_MAP, DEPLOYMENT, POD, Cluster, Kind, Object
from erasediff.rollout.objects import PORT, selector
from erasediff.rollout.run import RollOut
from erasediff.rollout.seam import Candidate
from erasediff.rollout.store import Exported, store_for
from erasediff.serve.admission import check_standing
from tests.exported import export_random
from tests.images.building import build

ROOT = Path(__file__).parent.parent.parent
TOOL = ROOT.parent / "shared/tools/one-node-cluster/one-node-cluster"
HOW = "set KUBECONFIG to a test cluster whose pods can be reached by IP from here, or run `make test-cluster` as root on Debian 12"
NAMESPACE, PERSISTENT_VOLUME = Kind("v1", "Namespace"), Kind("v1", "PersistentVolume")


def left_out(why: str) -> None:
    """Skip, or fail where somebody has asked for these tests by name."""
    if os.environ.get("ERASEDIFF_TEST_CLUSTER") == "required":
        pytest.fail(why)
    pytest.skip(why)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


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
    if not TOOL.is_file() or os.geteuid() != 0:
        left_out(f"no cluster is at hand: {HOW}.")
    state = tempfile.mkdtemp(prefix="erasediff-", dir="/tmp")  # sockets need a short path
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONE_NODE_CLUSTER_DIR", f"{state}/c")
        subprocess.run([TOOL, "build"], check=True)
        exports = subprocess.run([TOOL, "up"], check=True, capture_output=True, text=True).stdout
        try:
            for entry in shlex.split(exports)[1:]:
                name, _, value = entry.partition("=")
                patch.setenv(name, value)
            yield Path(os.environ["KUBECONFIG"])
        finally:
            subprocess.run([TOOL, "down"], check=False)
            shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def serve_image(kubeconfig: Path) -> str:
    """The serving image: one that is named, or the project's, built where the cluster's engine has it."""
    if named := os.environ.get("ERASEDIFF_TEST_SERVE_IMAGE"):
        return named
    if "DOCKER_HOST" not in os.environ:
        left_out(f"the cluster has no serving image: set ERASEDIFF_TEST_SERVE_IMAGE to one that its nodes have, or {HOW}.")
    return build("serve")


@pytest.fixture(scope="session")
def versions(tiny_unet: Callable[..., torch.nn.Module], tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Exported]:
    """Two small models that were exported for real: the second has forgotten one label more."""
    folder = tmp_path_factory.mktemp("versions")
    export_random(folder / "1", tiny_unet, seed=1, epoch=1, forgotten=(8,))
    export_random(folder / "2", tiny_unet, seed=2, epoch=2, forgotten=(8, 3))
    return Exported.read(folder / "1"), Exported.read(folder / "2")


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
        return RollOut(self.cluster, changed, check_standing, address or self.address).run(candidate)

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


@pytest.fixture
def namespace(kubeconfig: Path) -> Iterator[Cluster]:
    """An empty namespace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        with Cluster.connected(f"erasediff-test-{uuid.uuid4().hex[:8]}") as cluster:
            cluster.create(NAMESPACE, {"metadata": {"name": cluster.namespace}})
            try:
                yield cluster
            finally:
                cluster.delete(NAMESPACE, cluster.namespace)  # it takes its time, and the next test has another one


@pytest.fixture
def place(namespace: Cluster, serve_image: str, tmp_path: Path) -> Iterator[Place]:
    """A namespace with a service account and a claim over a folder of this machine."""
    folder = tmp_path / "claim"
    folder.mkdir(mode=0o755)
    volume = namespace.namespace
    with ExitStack() as stack:
        namespace.create(
            PERSISTENT_VOLUME,
            {
                "metadata": {"name": volume},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteMany"],
                    "hostPath": {"path": str(folder)},
                    "claimRef": {"namespace": namespace.namespace, "name": "models"},
                },
            },
        )
        stack.callback(namespace.delete, PERSISTENT_VOLUME, volume)
        claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}}
        namespace.create(Kind("v1", "PersistentVolumeClaim"), {"metadata": {"name": "models"}, "spec": claim})
        namespace.create(Kind("v1", "ServiceAccount"), {"metadata": {"name": "erasediff-serving"}})
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
