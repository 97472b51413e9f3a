"""Kubeflow Trainer: create a ``TrainJob``, wait until it ends, delete it.

It uses plain documents and the adapter over the cluster, since Trainer's own SDK needs another version of the Kubernetes client than kfp does.
A TrainJob is named after its attempt. If it already exists, a pod that was killed while it waited has created it, so this one waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from erasediff.cluster.answers import ConnectionLost, Forbidden, ObjectConflict, ObjectRejected, UnknownKind
from erasediff.cluster.api import POD, Cluster, Kind
from erasediff.cluster.events import last_warning, with_warnings
from erasediff.cluster.pods import pod_labels, restarts, silent_for, trouble_of, with_last_words
from erasediff.errors import BadInput, EraseDiffError
from erasediff.records.trainjob import KeysOf, TrainJobSettings
from erasediff.stopping import Stopped, raise_on_sigterm

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
TRAINJOB, RUNTIME = Kind(f"{GROUP}/{VERSION}", "TrainJob"), Kind(f"{GROUP}/{VERSION}", "ClusterTrainingRuntime")
GRACE_MINUTES = 60
_FIRST_POLL_SECONDS, _POLL_SECONDS = 0.25, 10.0
_RESTARTS = 3
"""A container that was started again so often has crashed for good; Trainer's runtime would go on for a Job's whole back-off."""
_NOTHING_SECONDS = 600
"""How long a TrainJob may be without pods, or the API server may fail to take it: a controller or a webhook may come back."""
_LOG_LINES = 20
_POD_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Trainer makes a JobSet of the TrainJob's name, and JobSet labels its pods with it."""
# The name of the job and the container in the ClusterTrainingRuntime `torch-distributed`.
_NODE = "node"

Document = dict[str, Any]


class TrainJobFailed(EraseDiffError):
    """A TrainJob failed, or did not end in time."""


class TrainJobs(Protocol):
    """The TrainJobs of one namespace."""

    namespace: str

    def create(self, document: Document) -> bool:
        """Create it; ``False`` if the name is taken."""

    def find(self, name: str) -> Document | None:
        """The TrainJob of this name."""

    def pods(self, name: str) -> list[Document]:
        """Its pods."""

    def log(self, pod: str, container: str) -> str:
        """The last lines of a container that has ended; empty if they may not be read."""

    def events(self) -> Sequence[Document]:
        """The events of the namespace; none if they may not be read."""

    def runtime(self, name: str) -> Document | None:
        """The ClusterTrainingRuntime of this name; ``None`` if there is none, or it may not be read."""

    def delete(self, name: str) -> None:
        """Delete it with everything it created; no error if it is already gone."""


def job_name(plan_digest: str) -> str:
    """The name of an attempt's TrainJob: a DNS label that is unique across workdirs."""
    return f"erase-{plan_digest[:24]}"


def torchrun_arguments(*command: str) -> list[str]:
    """The arguments with which ``torchrun`` runs a subcommand of ``erasediff``.

    Without ``--`` torchrun looks for options of its own after the module too, and for abbreviations of them.
    """
    return ["-m", "--", "erasediff", *command]


def trainjob(name: str, arguments: list[str], settings: TrainJobSettings) -> Document:
    """The document of a TrainJob that runs ``torchrun``.

    Args:
        name: see :func:`job_name`.
        arguments: see :func:`torchrun_arguments`.
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
                # Trainer sets PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK and the master's address, which torchrun reads.
                "command": ["torchrun"],
                "args": arguments,
                "env": _environment(settings),
                "numNodes": settings.nodes,
                "numProcPerNode": settings.processes_per_node,
                "resourcesPerNode": {"requests": settings.size.resources(), "limits": settings.size.resources()},
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
    """What the runtime's pods need in addition: the workdir, shared memory, and a security context that admission accepts."""
    pod = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in settings.size.resources() if "/" in key],
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
    template = {"metadata": {"labels": pod_labels("training")}, "spec": pod}
    return {"replicatedJobs": [{"name": _NODE, "template": {"spec": {"template": template}}}]}


class ClusterTrainJobs:
    """The TrainJobs of a cluster's namespace."""

    def __init__(self, cluster: Cluster) -> None:
        """Use the adapter of a cluster."""
        self._cluster, self.namespace = cluster, cluster.namespace

    def create(self, document: Document) -> bool:
        """Create it; ``False`` if the name is taken."""
        try:
            with self._advice():
                self._cluster.create(TRAINJOB, document)
        except ObjectConflict:
            return False
        return True

    def find(self, name: str) -> Document | None:
        """The TrainJob of this name."""
        with self._advice():
            return self._cluster.get(TRAINJOB, name)

    def pods(self, name: str) -> list[Document]:
        """Its pods."""
        with self._advice():
            return self._cluster.list(POD, {_POD_LABEL: name})

    def log(self, pod: str, container: str) -> str:
        """The last lines of a container that has ended; empty if they may not be read."""
        try:
            return self._cluster.log(pod, container, _LOG_LINES)
        except (Forbidden, ObjectRejected, ConnectionLost):  # an older Role, or the pod is gone: the exit code has to do
            return ""

    def events(self) -> Sequence[Document]:
        """The events of the namespace; none if they may not be read."""
        return self._cluster.events()

    def runtime(self, name: str) -> Document | None:
        """The ClusterTrainingRuntime of this name; ``None`` if there is none, or it may not be read."""
        try:
            return self._cluster.get(RUNTIME, name)
        except (Forbidden, UnknownKind):  # it belongs to no namespace, so most Roles do not allow it
            return None

    def delete(self, name: str) -> None:
        """Delete it with everything it created; no error if it is already gone."""
        with self._advice():
            # It exists until its pods are gone, so no second TrainJob writes into the workdir beside them.
            self._cluster.delete(TRAINJOB, name, "Foreground")

    @contextmanager
    def _advice(self) -> Iterator[None]:
        """Turn the cluster's refusals into sentences about TrainJobs.

        Raises:
            BadInput: the cluster refuses.
        """
        try:
            yield
        except Forbidden as error:
            raise BadInput(f"{str(error).rstrip('.')}: apply the Role of manifests/ and submit with its service account.") from None
        except UnknownKind:
            raise BadInput("this cluster has no TrainJobs: install Kubeflow Trainer 2, or submit with --profile gpu.") from None
        except ObjectRejected as error:
            raise BadInput(f"{str(error).rstrip('.')}: check image, resources and runtime of this profile.") from None


@contextmanager
def connected() -> Iterator[ClusterTrainJobs]:
    """The TrainJobs of the namespace that this pod runs in, or that the kubeconfig's context names.

    Raises:
        BadInput: no cluster is configured.
    """
    with Cluster.configured() as cluster:
        yield ClusterTrainJobs(cluster)


def check_runtime(jobs: TrainJobs, document: Document) -> None:
    """Check that the runtime of a TrainJob has the container that the TrainJob changes; Trainer leaves out what does not fit, without a word.

    Raises:
        BadInput: it has not.
    """
    name = str(document["spec"]["runtimeRef"]["name"])
    runtime = jobs.runtime(name)
    if runtime is None:  # Trainer's webhook says whether it is there
        return
    made = {job["name"]: job["template"]["spec"]["template"]["spec"] for job in runtime["spec"]["template"]["spec"]["replicatedJobs"]}
    if _NODE not in made or _NODE not in {container["name"] for container in made[_NODE]["containers"]}:
        raise BadInput(f"ClusterTrainingRuntime {name} has no container {_NODE!r} in a job {_NODE!r}: install Kubeflow Trainer's own {name}.")


def run_to_end(jobs: TrainJobs, document: Document, deadline_seconds: float) -> None:
    """Run a TrainJob to its end and delete it; if it already exists, wait for it.

    If the API server does not answer, it is tried again until the deadline. If the wait is cut short by a kill or a refusal, the TrainJob stays,
    and the next try of the step finds it by its name. On SIGTERM it is deleted: a run that was terminated must not hold its GPUs, and one that was
    evicted goes on from the erasure's checkpoint.

    Raises:
        TrainJobFailed: it failed, its pods crash or cannot start, it got none, it was deleted by somebody else, or it did not end in time.
        Stopped: this process got SIGTERM.
        EraseDiffError: the API refuses, did not take the TrainJob for minutes, or did not answer before the deadline.
    """
    try:
        with raise_on_sigterm("the erasure"):
            _wait_for_end(jobs, document, deadline_seconds)
    except Stopped as stopped:
        jobs.delete(name := str(document["metadata"]["name"]))
        raise Stopped(f"{stopped}, and TrainJob {name} was deleted: run the step again, and it goes on from its checkpoint.") from None


def _wait_for_end(jobs: TrainJobs, document: Document, deadline_seconds: float) -> None:
    name, end = str(document["metadata"]["name"]), time.monotonic() + deadline_seconds
    pause, seen, state = _FIRST_POLL_SECONDS, False, "is not there yet"
    patience = time.monotonic() + _NOTHING_SECONDS
    while True:
        problem: ConnectionLost | None = None
        creating = in_order = False
        try:
            found = jobs.find(name)
            leaving = found is not None and "deletionTimestamp" in found["metadata"]
            if seen and (found is None or leaving):
                raise TrainJobFailed(f"TrainJob {name} was deleted while it ran: find out by whom, and run the step again.")
            if found is None:
                creating = True
                check_runtime(jobs, document)
                jobs.create(document)
                in_order = True
            elif leaving:  # it is of an earlier try and is being deleted: wait, then create another
                in_order = True
            else:
                seen, state = True, _state(found)
                if _ended(jobs, name, found):
                    return
                in_order = _has_pods(jobs, name) or _condition(found, "Suspended") is not None
                if not in_order and time.monotonic() >= patience:
                    raise _without_pods(jobs, name, found)
        except ConnectionLost as error:
            problem, in_order = error, not creating  # where nothing could be seen, nothing was missing
        now = time.monotonic()
        if in_order:
            patience = now + _NOTHING_SECONDS
        if now >= end or (problem is not None and now >= patience):
            raise problem or _late(jobs, name, state, deadline_seconds)
        time.sleep(min(pause, max(0.0, end - now)))
        pause = min(2 * pause, _POLL_SECONDS)


def _condition(found: Document, kind: str) -> Document | None:
    """A condition of this kind that is true."""
    conditions: list[Document] = (found.get("status") or {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _state(found: Document) -> str:
    if (suspended := _condition(found, "Suspended")) is not None:
        return f"is suspended ({suspended['reason']})"
    jobs = (found.get("status") or {}).get("jobsStatus", [])
    return "was running" if any(job["active"] or job["ready"] for job in jobs) else "had not started"


def _ended(jobs: TrainJobs, name: str, found: Document) -> bool:
    """Whether a TrainJob has ended; it is deleted then.

    Raises:
        TrainJobFailed: it failed.
    """
    failed, complete = _condition(found, "Failed"), _condition(found, "Complete")
    if failed is None and complete is None:
        return False
    jobs.delete(name)
    if failed is not None:
        message = " ".join(str(failed["message"]).split())[:300].rstrip(".")
        raise TrainJobFailed(f"TrainJob {name} failed ({failed['reason']}: {message}).")
    return True


def _has_pods(jobs: TrainJobs, name: str) -> bool:
    """Whether a TrainJob has pods. It is deleted if they crash or cannot start: its status says "active" for as long as a Job's back-off lasts.

    Raises:
        TrainJobFailed: with the last words of the container, or what the cluster says of the pod.
    """
    pods, now = jobs.pods(name), datetime.now(UTC)
    if silent_for(pods, now):
        pods = with_warnings(pods, jobs.events())
    trouble = trouble_of(pods)
    goes_on = trouble is None or not trouble.lasts_too_long(now) or (trouble.hopeless and restarts(pods) in range(1, _RESTARTS))
    if not goes_on:
        told = trouble_of(with_last_words(pods, jobs.log))
        jobs.delete(name)
        raise TrainJobFailed(f"TrainJob {name} was ended and deleted: {told.sentence if told else 'its pods crash'}.")
    return bool(pods)


def _without_pods(jobs: TrainJobs, name: str, found: Document) -> TrainJobFailed:
    """Delete a TrainJob of which nothing was made."""
    warning = last_warning(jobs.events(), name, datetime.fromisoformat(found["metadata"]["creationTimestamp"]))
    jobs.delete(name)
    why = f": {warning[:300].rstrip('.')}" if warning else ", and no event says why: check that Trainer's and JobSet's controllers run"
    return TrainJobFailed(f"TrainJob {name} had no pods for {_NOTHING_SECONDS / 60:.0f} minutes and was deleted{why}.")


def _late(jobs: TrainJobs, name: str, state: str, seconds: float) -> TrainJobFailed:
    jobs.delete(name)
    return TrainJobFailed(f"TrainJob {name} {state} after {seconds / 60:.0f} minutes and was deleted: check that the cluster has such nodes.")
