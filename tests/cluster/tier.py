"""Whether the cluster's tests can be run here, and on what: `.ci/run` asks this, and conftest.py takes the tool from it.

python -m tests.cluster.tier     runs `make test-cluster`, or says in one line what is left out, why, and how to run it
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "ERASEDIFF_ONE_NODE_CLUSTER"
BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared/tools/one-node-cluster/one-node-cluster"
CRDS_VARIABLE = "ERASEDIFF_CRDS"
CRDS_BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared/crds"
CRDS = ("serving.kserve.io_inferenceservices.yaml", "trainer.kubeflow.org_trainjobs.yaml")
PROGRAMS = ("dockerd", "docker", "mmdebstrap")
BUILD_SECONDS = 20 * 60
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


def missing_definitions(environment: Mapping[str, str]) -> str | None:
    """Which of KServe's and Trainer's CRDs, that a part of the tests puts into the cluster, are missing."""
    folder = Path(environment.get(CRDS_VARIABLE) or CRDS_BESIDE_THE_CHECKOUT)
    absent = [name for name in CRDS if not (folder / name).is_file()]
    return f"{' and '.join(absent)} are not at hand: set {CRDS_VARIABLE} to a folder that has them" if absent else None


def build_failure(environment: Mapping[str, str], seconds: float) -> str | None:
    """Have the tool compile what it has not compiled yet, which takes minutes once a machine; what went wrong, if anything."""
    process = subprocess.Popen([tool(environment), "build"], env=dict(environment), start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its compilers
        process.wait()
        return f"`one-node-cluster build` did not end within {seconds / 60:.0f} minutes"
    return f"`one-node-cluster build` ended with {code}" if code else None


def run(environment: Mapping[str, str], is_root: bool, build_seconds: float = BUILD_SECONDS) -> int:
    """Run the tier's tests and give their exit status; 0 with one line where they are left out."""
    why = missing(environment, is_root) or missing_definitions(environment)
    if why is None and not environment.get("KUBECONFIG"):
        why = build_failure(environment, build_seconds)
    if why is not None:
        print(f"left out: the cluster's tests, for {why}. To run them: {HOW}.", flush=True)
        return 0
    return subprocess.run(["make", "test-cluster"], env=dict(environment), check=False).returncode


if __name__ == "__main__":
    sys.exit(run(os.environ, is_root=os.geteuid() == 0))
