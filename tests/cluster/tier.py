"""Whether the cluster's tests can be run here, and on what."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "ERASEDIFF_ONE_NODE_CLUSTER"
BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared/tools/one-node-cluster/one-node-cluster"
PROGRAMS = ("dockerd", "docker", "mmdebstrap")
HOW = (
    "set KUBECONFIG to a test cluster whose pods can be reached by IP from here and reach this machine, "
    f"or run `make test-cluster` as root on Debian 12 with docker.io and mmdebstrap, and {VARIABLE} set to the tool one-node-cluster"
)


def tool(environment: Mapping[str, str]) -> Path:
    """Where the tool that starts a one-node cluster would be."""
    return Path(environment.get(VARIABLE) or BESIDE_THE_CHECKOUT)


def missing(environment: Mapping[str, str], is_root: bool) -> str | None:
    """What is missing for a cluster; ``None`` where there is one, or where one can be started."""
    if environment.get("KUBECONFIG"):
        return None
    if not os.access(tool(environment), os.X_OK) or not tool(environment).is_file():
        named = f"{VARIABLE} names no program" if environment.get(VARIABLE) else f"{VARIABLE} is not set and no such tool lies beside the checkout"
        return f"KUBECONFIG is not set, and {named}"
    if not is_root:
        return "KUBECONFIG is not set, and only root can start a one-node cluster"
    absent = [name for name in PROGRAMS if shutil.which(name, path=environment.get("PATH")) is None]
    return f"KUBECONFIG is not set, and a one-node cluster needs {' and '.join(absent)}" if absent else None
