"""Explain the status of pods: pure functions from objects to sentences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from erasediff.cluster.api import Object

# Reasons that waiting does not cure. ImagePullBackOff is not one of them: a registry may come back.
_HOPELESS = {"CrashLoopBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"}
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff"}
_ORDINARY = {"ContainerCreating", "PodInitializing"}
_LENGTH = 300


def pod_labels(component: str) -> dict[str, str]:
    """The labels of every pod of EraseDiff: the network policies in ``manifests/`` select by them, and nobody else's pods have them."""
    return {"app.kubernetes.io/name": "erasediff", "app.kubernetes.io/part-of": "erasediff", "app.kubernetes.io/component": component}


@dataclass(frozen=True)
class Trouble:
    """Why a pod is not ready, and whether waiting is hopeless."""

    sentence: str
    hopeless: bool


def trouble_of(pods: Iterable[Object]) -> Trouble | None:
    """The trouble of the pods; a hopeless one comes first."""
    found = [trouble for pod in pods if (trouble := _trouble(pod)) is not None]
    return min(found, key=lambda trouble: not trouble.hopeless, default=None)


def ready(pods: Iterable[Object]) -> list[Object]:
    """The pods that are ready and do not end."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or ())
    ]


def names_behind(endpoints: Object | None) -> set[str]:
    """The names of the ready pods in the Endpoints of a Service."""
    subsets = (endpoints or {}).get("subsets") or ()
    return {address["targetRef"]["name"] for subset in subsets for address in subset.get("addresses") or () if "targetRef" in address}


def with_last_words(pods: Iterable[Object], log: Callable[[str, str], str]) -> list[Object]:
    """The pods, with the end of its log for each container that has ended badly and left no message.

    Args:
        pods: as the API server returns them.
        log: the log of a container, from its pod's name and its own.
    """
    told = copy.deepcopy(list(pods))
    for pod in told:
        for container in pod.get("status", {}).get("containerStatuses") or ():
            ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
            if ended and ended.get("exitCode", 0) != 0 and not ended.get("message"):
                ended["message"] = log(pod["metadata"]["name"], container["name"])
    return told


def restarts(pods: Iterable[Object]) -> int:
    """How often a container of these pods was restarted, at most."""
    return max((status.get("restartCount", 0) for pod in pods for status in pod.get("status", {}).get("containerStatuses") or ()), default=0)


def seconds_without_image(pods: Iterable[Object], now: datetime) -> float:
    """How long a pod has been on its node without its image, at most."""
    return max(
        (
            (now - datetime.fromisoformat(pod["status"]["startTime"])).total_seconds()
            for pod in pods
            for container in pod.get("status", {}).get("containerStatuses") or ()
            if container.get("state", {}).get("waiting", {}).get("reason") in _NO_IMAGE
        ),
        default=0.0,
    )


def _trouble(pod: Object) -> Trouble | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "Unschedulable":
            return Trouble(f"pod {name} cannot be scheduled: {_line(condition.get('message', 'no node fits'))}", False)
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state, last = container.get("state", {}), container.get("lastState", {})
        ended = state.get("terminated") or last.get("terminated") or {}
        waiting = state.get("waiting", {})
        reason = waiting.get("reason", "")
        if ended and ended.get("exitCode", 0) != 0:
            reported = _line(ended.get("message") or "") or ended.get("reason", "no reason given")
            return Trouble(f"pod {name} ended with exit code {ended['exitCode']}: {reported}", reason in _HOPELESS)
        if reason and reason not in _ORDINARY:
            return Trouble(f"pod {name} waits: {reason}" + (f", {_line(waiting['message'])}" if waiting.get("message") else ""), reason in _HOPELESS)
        if "running" in state and not container.get("ready") and container.get("started") is not None:
            return Trouble(f"pod {name} runs and is not ready", False)
    return None


def _line(text: str) -> str:
    """The last non-empty line, where a log has the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-_LENGTH:].rstrip(".") if lines else ""
