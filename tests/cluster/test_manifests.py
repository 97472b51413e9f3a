"""The lie: 'it is declared, so applying it again changes nothing', of manifests that were only ever read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from erasediff.cluster.api import Cluster
from tests.manifests.built import KUBECTL, OVERLAYS, Object, built

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


def here(objects: tuple[Object, ...], namespace: str) -> list[Object]:
    """The objects in a namespace of the test's own, which is there already."""
    text = yaml.safe_dump_all([found for found in objects if found["kind"] != "Namespace"])
    return list(yaml.safe_load_all(text.replace("namespace: erasediff\n", f"namespace: {namespace}\n")))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_applied_twice_without_a_difference(kubeconfig: Path, namespace: Cluster, tmp_path: Path, overlay: str) -> None:
    there = known(kubeconfig)
    objects = here(built(f"overlays/{overlay}"), namespace.namespace)
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
