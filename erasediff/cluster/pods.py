"""Explain the status of pods: pure functions from objects to sentences."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from erasediff.cluster.api import Object

# Reasons that waiting does not cure. ImagePullBackOff is not one of them: a registry may come back.
_HOPELESS = {"CrashLoopBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"}
# Reasons that somebody may cure: a registry comes back, a volume is given free.
_WORTH_MINUTES = {"ErrImagePull", "ImagePullBackOff", "FailedMount", "FailedAttachVolume"}
_MINUTES, _FOR_ROOM = 10 * 60.0, 60 * 60.0
"""How long they are waited out, and how long a pod may wait for a node with room: one may have to be bought."""
_CLAIM = re.compile(r"persistentvolume|volume node affinity|ReadWriteOncePod", re.IGNORECASE)
_ORDINARY = {"ContainerCreating", "PodInitializing"}
_LENGTH = 300


def pod_labels(component: str) -> dict[str, str]:
    """The labels of every pod of EraseDiff: the network policies in ``manifests/`` select by them, and nobody else's pods have them."""
    return {"app.kubernetes.io/name": "erasediff", "app.kubernetes.io/part-of": "erasediff", "app.kubernetes.io/component": component}


@dataclass(frozen=True)
class Trouble:
    """Why a pod is not ready, and how long that may last; 0: waiting is hopeless.

    ``since`` is when it began, as far as the cluster says it.
    """

    sentence: str
    patience: float = math.inf
    since: datetime | None = None

    @property
    def hopeless(self) -> bool:
        """Whether waiting cures nothing."""
        return not self.patience

    def lasts_too_long(self, now: datetime) -> bool:
        """Whether it was waited for long enough."""
        return self.hopeless or (self.since is not None and (now - self.since).total_seconds() > self.patience)


def trouble_of(pods: Iterable[Object]) -> Trouble | None:
    """The trouble of the pods; the one with the least patience comes first."""
    found = [trouble for pod in pods if (trouble := _trouble(pod)) is not None]
    return min(found, key=lambda trouble: trouble.patience, default=None)


def silent_for(pods: Iterable[Object], now: datetime) -> bool:
    """Whether a pod has been on its node for minutes, and its status gives no reason why its containers are not made: its events may."""
    return any(
        (since := _started(pod)) is not None
        and (now - since).total_seconds() > _MINUTES
        and container.get("state", {}).get("waiting", {}).get("reason") in _ORDINARY
        for pod in pods
        for container in pod.get("status", {}).get("containerStatuses") or ()
    )


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


def _trouble(pod: Object) -> Trouble | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "Unschedulable":
            message = condition.get("message", "no node fits")
            patience = _MINUTES if _CLAIM.search(message) and "Insufficient" not in message else _FOR_ROOM
            return Trouble(f"pod {name} cannot be scheduled: {_line(message)}", patience, _time(condition.get("lastTransitionTime")))
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state, last = container.get("state", {}), container.get("lastState", {})
        ended = state.get("terminated") or last.get("terminated") or {}
        waiting = state.get("waiting", {})
        reason = waiting.get("reason", "")
        if ended and ended.get("exitCode", 0) != 0:
            reported = _line(ended.get("message") or "") or ended.get("reason", "no reason given")
            return Trouble(f"pod {name} ended with exit code {ended['exitCode']}: {reported}", _patience(reason), _started(pod))
        if reason and reason not in _ORDINARY:
            why = f", {_line(waiting['message'])}" if waiting.get("message") else ""
            return Trouble(f"pod {name} waits: {reason}{why}", _patience(reason), _started(pod))
        if "running" in state and not container.get("ready") and container.get("started") is not None:
            return Trouble(f"pod {name} runs and is not ready")
    return None


def _patience(reason: str) -> float:
    if reason in _HOPELESS:
        return 0
    return _MINUTES if reason in _WORTH_MINUTES else math.inf


def _started(pod: Object) -> datetime | None:
    """When the kubelet took a pod."""
    return _time(pod["status"].get("startTime"))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _line(text: str) -> str:
    """The last non-empty line, where a log has the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-_LENGTH:].rstrip(".") if lines else ""
