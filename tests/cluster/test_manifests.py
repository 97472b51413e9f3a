"""The lie: 'it is declared, so applying it again changes nothing', of manifests that were only ever read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from erasediff.cluster.api import POD, Cluster
from erasediff.cluster.pods import pod_labels
from tests.manifests.built import KUBECTL, NAMESPACES, OVERLAYS, Object, built

NOT_ON_AN_OLD_SERVER = {"PodDisruptionBudget", "InferenceService", "ServingRuntime", "TrainingRuntime"}
"""policy/v1 came with Kubernetes 1.21; the others are KServe's and Trainer's."""


def kubectl(kubeconfig: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KUBECTL, "--kubeconfig", kubeconfig, *arguments], capture_output=True, text=True, check=False)


def known(kubeconfig: Path) -> set[tuple[str, str]]:
    """API version and kind of everything that the server knows."""
    found = kubectl(kubeconfig, "api-resources", "--no-headers")
    assert found.returncode == 0, found.stderr
    rows = [line.split() for line in found.stdout.splitlines()]
    return {(row[-3], row[-1]) for row in rows}


def here(overlay: str, namespace: str) -> list[Object]:
    """The objects of an overlay, in a namespace of the test's own, which is there already."""
    objects = built(f"overlays/{overlay}")
    text = yaml.safe_dump_all([found for found in objects if found["kind"] != "Namespace"])
    return list(yaml.safe_load_all(text.replace(f"namespace: {NAMESPACES[overlay]}\n", f"namespace: {namespace}\n")))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_applied_twice_without_a_difference(kubeconfig: Path, namespace: Cluster, tmp_path: Path, overlay: str) -> None:
    there = known(kubeconfig)
    objects = here(overlay, namespace.namespace)
    left_out = {found["kind"] for found in objects if (found["apiVersion"], found["kind"]) not in there}
    assert left_out <= NOT_ON_AN_OLD_SERVER
    kept = [found for found in objects if found["kind"] not in left_out and found["metadata"].get("namespace") == namespace.namespace]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(kept))
    first = kubectl(kubeconfig, "apply", "--filename", file)
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.splitlines()) == len(kept) > 10
    again = kubectl(kubeconfig, "diff", "--filename", file)
    assert (again.returncode, again.stdout) == (0, ""), again.stdout + again.stderr
    second = kubectl(kubeconfig, "apply", "--filename", file)
    assert all(line.endswith("unchanged") for line in second.stdout.splitlines()), second.stdout

    changed = next(found for found in kept if found["kind"] == "ConfigMap")
    changed["data"] = {**changed.get("data", {}), "MLFLOW_TRACKING_URI": "http://another"}
    file.write_text(yaml.safe_dump_all(kept))
    assert kubectl(kubeconfig, "diff", "--filename", file).returncode == 1, "control: a change is seen"


# Labels of pods in the namespace of Kubeflow Pipelines 2.17, and of a run of somebody else's pipeline there.
OTHERS = {
    "ml-pipeline": {"app": "ml-pipeline", "app.kubernetes.io/component": "ml-pipeline", "app.kubernetes.io/name": "kubeflow-pipelines"},
    "seaweedfs": {"app": "seaweedfs", "app.kubernetes.io/component": "ml-pipeline", "app.kubernetes.io/name": "kubeflow-pipelines"},
    "workflow-controller": {"app": "workflow-controller", "application-crd-id": "kubeflow-pipelines"},
    "driver": {"pipeline/runid": "1", "workflows.argoproj.io/workflow": "erasediff-x"},
    "somebody-elses-step": {"pipeline/runid": "2", "pipelines.kubeflow.org/v2_component": "true"},
    "somebody-elses-model": {"serving.kserve.io/inferenceservice": "other", "app.kubernetes.io/component": "serving"},
    "somebody-elses-mlflow": {"app.kubernetes.io/name": "mlflow"},
}


def test_the_overlay_for_kubeflows_own_namespace_selects_no_pod_of_kubeflow(namespace: Cluster) -> None:
    """The API server itself says which pods a policy, a Service or a budget selects."""
    for name, labels in {**OTHERS, "step": pod_labels("step")}.items():
        pod = {"containers": [{"name": "main", "image": "none", "imagePullPolicy": "Never"}], "nodeSelector": {"no": "node"}}
        namespace.create(POD, {"metadata": {"name": name, "labels": labels}, "spec": pod})

    def selected(objects: list[Object]) -> set[str]:
        selectors = [found["spec"].get("podSelector", found["spec"].get("selector")) for found in objects if found["kind"] in SELECTING]
        assert len(selectors) > 5
        return {pod["metadata"]["name"] for selector in selectors for pod in pods_of(namespace, selector)}

    assert selected(here("single-user", namespace.namespace)) == {"step"}
    assert selected(here("dev", namespace.namespace)) == {*OTHERS, "step"}, "control: in a namespace of its own all pods are meant"


SELECTING = {"NetworkPolicy", "Service", "PodDisruptionBudget"}


def pods_of(cluster: Cluster, selector: Object) -> list[Object]:
    """The pods that a selector of either form matches, as the API server sees it."""
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "Exists" for expression in expressions)
    labels = selector.get("matchLabels", {} if {"matchLabels", "matchExpressions"} & selector.keys() else selector)
    found = cluster.list(POD, labels)
    return [pod for pod in found if all(expression["key"] in pod["metadata"]["labels"] for expression in expressions)]
