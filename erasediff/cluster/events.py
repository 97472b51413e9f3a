"""Read events: what the cluster's own controllers and the kubelet say of an object, where its status does not."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import datetime

from erasediff.cluster.api import Object

_SILENT = {"ContainerCreating", "PodInitializing"}
_MOST_TELLING = "FailedAttachVolume"
"""Of a volume that is attached elsewhere the kubelet says "FailedMount" too, and only that it has waited."""


def with_warnings(pods: Iterable[Object], events: Iterable[Object]) -> list[Object]:
    """The pods, with the last warning about each as the reason for which its containers wait, where its status gives none.

    A warning counts until something went well after it: a volume that was mounted at the second try keeps nothing waiting.
    """
    told, known = copy.deepcopy(list(pods)), list(events)
    for pod in told:
        waiting = [state for container in _containers(pod) if (state := container.get("state", {}).get("waiting", {})).get("reason") in _SILENT]
        if waiting and (warning := _standing_warning(known, pod["metadata"]["name"])) is not None:
            for state in waiting:
                state.update(reason=warning["reason"], message=warning["message"])
    return told


def last_warning(events: Iterable[Object], name: str, since: datetime) -> str | None:
    """The message of the last warning, no older than that, about an object or what was made of it.

    Jobs and pods have names that begin with the name of what they were made of.
    """
    about = [event for event in events if f"{event['involvedObject'].get('name')}-".startswith(f"{name}-")]
    found = [event for event in about if event.get("type") == "Warning" and moment(event) >= since]
    return " ".join(str(max(found, key=moment)["message"]).split()) if found else None


def moment(event: Object) -> datetime:
    """When an event was seen last; the newer API has other fields for it than the older one."""
    seen = event.get("lastTimestamp") or (event.get("series") or {}).get("lastObservedTime") or event.get("eventTime")
    return datetime.fromisoformat(seen or event["metadata"]["creationTimestamp"])


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _standing_warning(events: list[Object], pod: str) -> Object | None:
    """The most telling warning about a pod after which nothing went well."""
    standing: dict[str, Object] = {}
    for event in sorted((one for one in events if one["involvedObject"].get("name") == pod), key=moment):
        if event.get("type") == "Warning":
            standing[event["reason"]] = event
        else:
            standing.clear()
    return standing.get(_MOST_TELLING) or next(reversed(standing.values()), None)
