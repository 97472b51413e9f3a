"""Kubeflow Trainer: make a ``TrainJob``, wait until it ends, delete it.

Plain documents and the adapter over the cluster, for Trainer's own SDK asks for another version of that client than kfp.
A TrainJob is named by the attempt that it belongs to. One that is already there is the work of a pod that was killed
while it waited, so it is waited for and not made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from erasediff.cluster.answers import ConnectionLost, Forbidden, ObjectConflict, ObjectRejected, UnknownKind
from erasediff.cluster.api import Cluster, Kind
from erasediff.errors import BadInput, EraseDiffError
from erasediff.records.trainjob import KeysOf, TrainJobSettings

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
TRAINJOB = Kind(f"{GROUP}/{VERSION}", "TrainJob")
GRACE_MINUTES = 60
_FIRST_POLL_SECONDS, _POLL_SECONDS = 0.25, 10.0
# The names that the ClusterTrainingRuntime `torch-distributed` gives its job and its container.
_NODE = "node"

Document = dict[str, Any]


class TrainJobFailed(EraseDiffError):
    """A TrainJob ended badly, or did not end in time."""


class TrainJobs(Protocol):
    """The TrainJobs of one namespace."""

    namespace: str

    def create(self, document: Document) -> bool:
        """Create one; ``False`` if there is one of this name."""

    def find(self, name: str) -> Document | None:
        """The one of this name."""

    def delete(self, name: str) -> None:
        """Delete it with everything it made; one that is gone already is no error."""


def job_name(plan_digest: str) -> str:
    """The name of an attempt's TrainJob: a DNS label that another attempt, even in another workdir, does not have."""
    return f"erase-{plan_digest[:24]}"


def trainjob(name: str, command: list[str], settings: TrainJobSettings) -> Document:
    """The document of a TrainJob that runs a module under torchrun.

    Args:
        name: see :func:`job_name`.
        command: what torchrun runs: ``-m``, a module and its arguments.
        settings: nodes, image and mounts.
    """
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "erasediff", "app.kubernetes.io/component": "erase"}},
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": settings.runtime},
            "activeDeadlineSeconds": settings.minutes * 60,
            "trainer": {
                "image": settings.image,
                # Trainer puts PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK and the master's address where torchrun reads them.
                "command": ["torchrun"],
                "args": command,
                "env": _environment(settings),
                "numNodes": settings.nodes,
                "numProcPerNode": settings.processes_per_node,
                "resourcesPerNode": {"requests": settings.resources, "limits": settings.resources},
            },
            "runtimePatches": [{"manager": "erasediff.io/erase", "trainingRuntimeSpec": {"template": {"spec": _patch(settings)}}}],
        },
    }


def _environment(settings: TrainJobSettings) -> list[Document]:
    def referred(kind: str, source: KeysOf) -> list[Document]:
        return [{"name": key, "valueFrom": {kind: {"name": source.name, "key": key, "optional": True}}} for key in source.keys]

    plain: list[Document] = [{"name": name, "value": value} for name, value in sorted(settings.environment.items())]
    return plain + referred("configMapKeyRef", settings.settings) + referred("secretKeyRef", settings.credentials)


def _patch(settings: TrainJobSettings) -> Document:
    """What the runtime's pods need besides: the workdir, shared memory, and a security context that admission accepts."""
    pod = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in settings.resources if "/" in key],
        "volumes": [
            {"name": "workdir", "persistentVolumeClaim": {"claimName": settings.claim}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "containers": [
            {
                "name": _NODE,
                "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "workdir", "mountPath": settings.mount},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                ],
            }
        ],
    }
    return {"replicatedJobs": [{"name": _NODE, "template": {"spec": {"template": {"spec": pod}}}}]}


class ClusterTrainJobs:
    """The TrainJobs of a cluster's namespace."""

    def __init__(self, cluster: Cluster) -> None:
        """Speak through the adapter."""
        self._cluster, self.namespace = cluster, cluster.namespace

    def create(self, document: Document) -> bool:
        """Create one; ``False`` if there is one of this name."""
        try:
            with self._advice():
                self._cluster.create(TRAINJOB, document)
        except ObjectConflict:
            return False
        return True

    def find(self, name: str) -> Document | None:
        """The one of this name."""
        with self._advice():
            return self._cluster.get(TRAINJOB, name)

    def delete(self, name: str) -> None:
        """Delete it with everything it made; one that is gone already is no error."""
        with self._advice():
            # Until its pods are gone it stays and is seen to go, so no second one writes into the workdir beside them.
            self._cluster.delete(TRAINJOB, name, "Foreground")

    @contextmanager
    def _advice(self) -> Iterator[None]:
        """Say what to do about an answer where that is another thing for TrainJobs.

        Raises:
            BadInput: the cluster refuses.
        """
        try:
            yield
        except Forbidden:
            raise BadInput(
                f"this service account may not manage TrainJobs in namespace {self.namespace} (403): "
                "apply the Role of manifests/ and submit with its service account."
            ) from None
        except UnknownKind:
            raise BadInput("this cluster has no TrainJobs: install Kubeflow Trainer 2, or submit with --profile gpu.") from None
        except ObjectRejected as error:
            raise BadInput(f"{str(error).rstrip('.')}: check image, resources and runtime of this profile.") from None


@contextmanager
def connected() -> Iterator[ClusterTrainJobs]:
    """The TrainJobs of the namespace that this pod runs in, or that the kubeconfig's context names.

    Raises:
        BadInput: there is no cluster to speak to.
    """
    with Cluster.configured() as cluster:
        yield ClusterTrainJobs(cluster)


def run_to_end(jobs: TrainJobs, document: Document, deadline_seconds: float) -> None:
    """Run a TrainJob to its end and delete it; one of this name that is there is waited for.

    A server that is away for a moment is waited for too, until the deadline. Where the wait itself is cut short, by a kill
    or a refusal, the TrainJob is left: the next try of the step finds it by its name.

    Raises:
        TrainJobFailed: it failed, was deleted by somebody else, or did not end in time.
        EraseDiffError: the API refuses, or did not answer before the deadline.
    """
    name, end = str(document["metadata"]["name"]), time.monotonic() + deadline_seconds
    pause, seen, state = _FIRST_POLL_SECONDS, False, "is not there yet"
    while True:
        problem: ConnectionLost | None = None
        try:
            found = jobs.find(name)
            leaving = found is not None and "deletionTimestamp" in found["metadata"]
            if seen and (found is None or leaving):
                raise TrainJobFailed(f"TrainJob {name} was deleted while it ran: find out by whom, and run the step again.")
            if found is None:
                jobs.create(document)
            elif not leaving:  # else it is of an earlier try: it goes, and another is made
                seen, state = True, _state(found)
                if _ended(jobs, name, found):
                    return
        except ConnectionLost as error:
            problem = error
        if time.monotonic() >= end:
            raise problem or _late(jobs, name, state, deadline_seconds)
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(2 * pause, _POLL_SECONDS)


def _condition(found: Document, kind: str) -> Document | None:
    """A condition that is true."""
    conditions: list[Document] = found.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _state(found: Document) -> str:
    if (suspended := _condition(found, "Suspended")) is not None:
        return f"is suspended ({suspended['reason']})"
    jobs = found.get("status", {}).get("jobsStatus", [])
    return "was running" if any(job["active"] for job in jobs) else "had not started"


def _ended(jobs: TrainJobs, name: str, found: Document) -> bool:
    """Whether a TrainJob has ended; one that has is deleted.

    Raises:
        TrainJobFailed: it ended badly.
    """
    failed, complete = _condition(found, "Failed"), _condition(found, "Complete")
    if failed is None and complete is None:
        return False
    jobs.delete(name)
    if failed is not None:
        message = " ".join(str(failed["message"]).split())[:300].rstrip(".")
        raise TrainJobFailed(f"TrainJob {name} failed ({failed['reason']}: {message}).")
    return True


def _late(jobs: TrainJobs, name: str, state: str, seconds: float) -> TrainJobFailed:
    jobs.delete(name)
    return TrainJobFailed(f"TrainJob {name} {state} after {seconds / 60:.0f} minutes and was deleted: has the cluster the nodes that it asks for?")
