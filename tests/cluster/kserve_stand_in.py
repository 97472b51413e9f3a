"""A stand-in for KServe's controller, named so: it plays the transitions of an InferenceService's status.

In Standard mode they are those that KServe 0.20 was recorded to make; in Knative mode nothing was recorded. It starts no pod but one that fails.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import INFERENCE_SERVICE, POD, SERVICE, Cluster, Object
from erasediff.errors import EraseDiffError

LATE = 1.0  # seconds in which the status still speaks of the generation before, as KServe's does


class StandInController:
    """Watches one InferenceService and writes its status, late; ``failing`` are storage URIs that never load."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.failing: set[str] = set()
        self.seen: list[Object] = []
        self._revisions: list[str] = []
        self._rolled_out: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> StandInController:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        known = 0
        while not self._stop.wait(0.2):
            try:
                present = self.cluster.get(INFERENCE_SERVICE, self.name)
                if present is None or present["metadata"]["generation"] == known:
                    continue
                known = present["metadata"]["generation"]
                self.seen.append(present["spec"])
                self._stop.wait(LATE)
                resource = self.cluster._resource(INFERENCE_SERVICE)
                body = {**present, "status": self._status(present)}
                del body["metadata"]["managedFields"]
                resource.status.replace(body=body, name=self.name, namespace=self.cluster.namespace)
            except EraseDiffError:
                continue
            except Exception as error:  # a newer version is there already: the next turn sees it
                if getattr(error, "status", None) not in (404, 409):
                    raise
                known = 0

    def _status(self, present: Object) -> Object:
        spec, mode = present["spec"], present["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
        stable = spec["predictor"]
        loaded = stable["model"]["storageUri"] not in self.failing
        status: dict[str, Any] = {"deploymentMode": mode, "conditions": [{"type": "Ready", "status": "True" if loaded else "False"}]}
        status["modelStatus"] = self._model_status(loaded)
        if mode == "Knative":
            return status | {"components": {"predictor": self._knative(stable, loaded)}}
        # As recorded of KServe 0.20: the generation is the Deployment's, and a canary's load is never told.
        host = f"{self._serve(stable)}.{self.cluster.namespace}.svc.cluster.local"
        status |= {"observedGeneration": 1, "address": {"url": f"http://{host}"}}
        canaries = [self._canary(entry) for entry in spec.get("canary", ())]
        return status | ({"canaryStatuses": canaries} if canaries else {})

    def _canary(self, entry: Object) -> Object:
        """KServe 0.20 says ``modelStatus: {transitionStatus: ""}`` here, which an API server of 1.20 takes for null and refuses."""
        self._serve(entry["predictor"])
        loaded = entry["predictor"]["model"]["storageUri"] not in self.failing
        return {"name": entry["predictor"]["name"], "ready": loaded, "trafficPercent": entry["trafficPercent"]}

    def _serve(self, predictor: Object) -> str:
        """A predictor's Service, and a pod of one that does not load: a real one, whose image no node has."""
        service = f"{self.name}-{predictor['name']}-predictor"
        labels = {"app": f"isvc.{service}"}
        ports = [{"port": 80, "targetPort": 8080}]
        with suppress(ObjectConflict):
            self.cluster.create(SERVICE, {"metadata": {"name": service}, "spec": {"selector": labels, "ports": ports}})
        if predictor["model"]["storageUri"] in self.failing:
            container = {"name": "kserve-container", "image": "erasediff-no-such-image:1", "imagePullPolicy": "Never"}
            with suppress(ObjectConflict):
                self.cluster.create(POD, {"metadata": {"name": service, "labels": labels}, "spec": {"containers": [container]}})
        return service

    def _knative(self, stable: Object, loaded: bool) -> Object:
        uri, percent = stable["model"]["storageUri"], stable.get("canaryTrafficPercent", 100)
        if not self._revisions or self._revisions[-1] != uri:
            self._revisions.append(uri)
        created = f"revision-{len(self._revisions)}"
        if loaded and percent == 100:
            self._rolled_out = created
        found = {"latestCreatedRevision": created, "latestReadyRevision": created if loaded else self._rolled_out}
        return {
            **found,
            "latestRolledoutRevision": self._rolled_out,
            "traffic": [{"revisionName": created, "latestRevision": True, "percent": percent}],
        }

    @staticmethod
    def _model_status(loaded: bool) -> Object:
        if loaded:
            return {"transitionStatus": "UpToDate"}
        return {
            "transitionStatus": "BlockedByFailedLoad",
            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "the model is not the measured one"},
        }
