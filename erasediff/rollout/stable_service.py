"""The address that stays: a Service of ours, beside those that KServe makes anew for each predictor."""

from __future__ import annotations

from erasediff.cluster.api import ENDPOINTS, POD, SERVICE, Cluster, Object
from erasediff.cluster.deadline import Deadline
from erasediff.cluster.pods import names_behind, ready
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.objects import PORT, check_own, labels_of


class StableService:
    """The Service ``NAME-stable``. KServe's own names end in ``-predictor``."""

    def __init__(self, cluster: Cluster, settings: RollOutSettings) -> None:
        """Take the cluster and the settings, without calls."""
        self._cluster, self._settings = cluster, settings
        self._name = f"{settings.name}-stable"

    def check_own(self) -> None:
        """Raise BadInput if somebody else made a Service of this name."""
        check_own(SERVICE, self._cluster.get(SERVICE, self._name))

    def point(self, selector: dict[str, str], deadline: Deadline) -> None:
        """Let the Service select other pods, once one of them is ready; clients that still have the earlier ones get time to leave them.

        Raises:
            TimeUp: none became ready, or the endpoints did not become those that are; clients keep the earlier pods until one is ready.
        """
        present = self._cluster.get(SERVICE, self._name)
        if present is None:
            self._cluster.create(SERVICE, self._body(selector))
            self._wait_endpoints(selector, deadline)
            return
        if present["spec"].get("selector") == selector:
            return
        while not ready(self._cluster.list(POD, selector)):
            deadline.check(f"no pod for Service {self._settings.namespace}/{self._name} became ready")
            deadline.pause(1.0)
        self._cluster.change(SERVICE, self._name, lambda service: {**service, "spec": {**service["spec"], "selector": selector}})
        self._wait_endpoints(selector, deadline)
        deadline.pause(self._settings.drain_seconds)

    def remove(self) -> None:
        """Delete the Service."""
        self._cluster.delete(SERVICE, self._name)

    def _wait_endpoints(self, selector: dict[str, str], deadline: Deadline) -> None:
        """Wait until the endpoints are exactly the ready pods."""

        def exactly(endpoints: Object | None) -> bool | None:
            wanted = {pod["metadata"]["name"] for pod in ready(self._cluster.list(POD, selector))}
            return True if names_behind(endpoints) == wanted else None

        what = f"the endpoints of Service {self._settings.namespace}/{self._name} did not become the ready pods"
        self._cluster.wait(ENDPOINTS, self._name, exactly, deadline, what)

    def _body(self, selector: dict[str, str]) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self._name, "labels": labels_of(self._settings, "stable")},
            "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}]},
        }
