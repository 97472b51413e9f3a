"""Explain the status of Deployments and pods: pure functions from objects to sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from erasediff.cluster.api import Object

# Reasons that waiting does not cure. ImagePullBackOff is not one of them: a registry may come back.
_HOPELESS = {"CrashLoopBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"}
_ORDINARY = {"ContainerCreating", "PodInitializing"}
_LENGTH = 300


@dataclass(frozen=True)
class Trouble:
    """Why a pod is not ready, and whether waiting is hopeless."""

    sentence: str
    hopeless: bool


def is_rolled_out(deployment: Object) -> bool:
    """Whether all pods are available and of the newest generation."""
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and updated == wanted
        and status.get("replicas", 0) == updated
        and status.get("availableReplicas", 0) >= wanted
    )


def gave_up(deployment: Object) -> bool:
    """Whether Kubernetes reports that the newest generation makes no progress."""
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return False
    return any(c["type"] == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded" for c in status.get("conditions") or ())


def trouble_of(pods: Iterable[Object]) -> Trouble | None:
    """The trouble of the pods; a hopeless one comes first."""
    found = [trouble for pod in pods if (trouble := _trouble(pod)) is not None]
    return min(found, key=lambda trouble: not trouble.hopeless, default=None)


def restarted(pods: Iterable[Object]) -> bool:
    """Whether a container of these pods was restarted."""
    return any(status.get("restartCount", 0) for pod in pods for status in pod.get("status", {}).get("containerStatuses") or ())


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
