"""A stand-in for KServe's controller, named so: it plays the transitions of an InferenceService's status.

In Standard mode they are those that KServe 0.20 was recorded to make, and each predictor has a Deployment and a Service named as the recorded ones;
the pods are real, made of the container of our own ServingRuntime. In Knative mode nothing was recorded, and no pod is started.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from erasediff.cluster.api import DEPLOYMENT, INFERENCE_SERVICE, SERVICE, Cluster, Object
from erasediff.errors import EraseDiffError
from erasediff.rollout.kserve import service_name
from erasediff.rollout.kserve_standard import SHARED_LABEL

RUNTIME = Path(__file__).parents[2] / "manifests/components/kserve/runtime.yaml"
LATE = 1.0  # seconds in which the status still speaks of the generation before, as KServe's does


@cache
def runtime() -> Object:
    """The spec of our ServingRuntime."""
    documents = list(yaml.safe_load_all(RUNTIME.read_text()))
    return next(dict(found["spec"]) for found in documents if found["kind"] == "ServingRuntime")


def pod(predictor: Object, image: str) -> Object:
    """What KServe makes of a predictor and the runtime: the model lies on a claim, read-only."""
    claim, _, path = predictor["model"]["storageUri"].removeprefix("pvc://").partition("/")
    container = dict(runtime()["containers"][0])
    mount = {"name": "model", "mountPath": "/mnt/models", "subPath": path, "readOnly": True}
    small = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": container["resources"]["limits"]}  # the node has two cores for all pods
    container |= {"image": image, "imagePullPolicy": "Never", "resources": small, "volumeMounts": [*container["volumeMounts"], mount]}
    volume = {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return {
        "serviceAccountName": predictor["serviceAccountName"],
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [*runtime()["volumes"], volume],
    }


class StandInController:
    """Watches one InferenceService and writes its status, late; ``failing`` are storage URIs that never load."""

    def __init__(self, cluster: Cluster, name: str, image: str) -> None:
        self.cluster, self.name, self.image = cluster, name, image
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
                if present is None:
                    continue
                if present["metadata"]["generation"] != known:
                    known = present["metadata"]["generation"]
                    self.seen.append(present["spec"])
                    self._stop.wait(LATE)
                status = self._status(present)
                if status == present.get("status"):
                    continue
                body = {**present, "status": status}
                del body["metadata"]["managedFields"]
                self.cluster._resource(INFERENCE_SERVICE).status.replace(body=body, name=self.name, namespace=self.cluster.namespace)
            except EraseDiffError:
                continue
            except Exception as error:  # a newer version is there already: the next turn sees it
                if getattr(error, "status", None) not in (404, 409):
                    raise

    def _status(self, present: Object) -> Object:
        spec, mode = present["spec"], present["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
        stable = spec["predictor"]
        loaded = stable["model"]["storageUri"] not in self.failing
        status: dict[str, Any] = {"deploymentMode": mode, "modelStatus": self._model_status(loaded)}
        if mode == "Knative":
            status["conditions"] = [{"type": "Ready", "status": "True" if loaded else "False"}]
            return status | {"components": {"predictor": self._knative(stable, loaded)}}
        # As recorded of KServe 0.20: the generation is the Deployment's, and a canary's load is never told.
        available = self._serve(present, stable, "stable")
        host = f"{service_name(self.name, stable['name'])}.{self.cluster.namespace}.svc.cluster.local"
        status["conditions"] = [{"type": "Ready", "status": "True" if available else "False"}]
        status |= {"observedGeneration": 1, "address": {"url": f"http://{host}"}}
        canaries = [self._canary(present, entry) for entry in spec.get("canary", ())]
        self._remove_others([stable["name"], *(canary["name"] for canary in canaries)])
        return status | ({"canaryStatuses": canaries} if canaries else {})

    def _canary(self, present: Object, entry: Object) -> Object:
        """KServe 0.20 says ``modelStatus: {transitionStatus: ""}`` here, which an API server of 1.20 takes for null and refuses."""
        ready = self._serve(present, entry["predictor"], "canary")
        return {"name": entry["predictor"]["name"], "ready": ready, "trafficPercent": entry["trafficPercent"]}

    def _serve(self, present: Object, predictor: Object, role: str) -> bool:
        """A predictor's Deployment and Service; whether the Deployment is available.

        As recorded, a canary that is promoted gets another generation of its Deployment, and two copies for a while: the role makes its pods others.
        """
        name = service_name(self.name, predictor["name"])
        labels = {"app": f"isvc.{name}", SHARED_LABEL: self.name, "component": "predictor", **runtime()["labels"]}
        selected = {"app": labels["app"]}
        owner = {"apiVersion": present["apiVersion"], "kind": present["kind"], "name": self.name, "uid": present["metadata"]["uid"]}
        metadata = {"name": name, "labels": {SHARED_LABEL: self.name}, "ownerReferences": [owner]}
        image = "erasediff-no-such-image:1" if predictor["model"]["storageUri"] in self.failing else self.image
        template = {"metadata": {"labels": labels, "annotations": {"stand-in/role": role}}, "spec": pod(predictor, image)}
        spec = {"replicas": predictor["minReplicas"], "selector": {"matchLabels": selected}, "template": template}
        made = self.cluster.apply(DEPLOYMENT, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        ports = [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
        self.cluster.apply(SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": selected, "ports": ports}})
        conditions = made.get("status", {}).get("conditions") or ()
        return any(c["type"] == "Available" and c["status"] == "True" for c in conditions)

    def _remove_others(self, names: list[str]) -> None:
        """At once, as KServe does: whoever still asks a predictor that is not in the spec any more gets no answer."""
        wanted = {service_name(self.name, name) for name in names}
        for kind in (DEPLOYMENT, SERVICE):
            for found in self.cluster.list(kind, {SHARED_LABEL: self.name}):
                if found["metadata"]["name"] not in wanted:
                    self.cluster.delete(kind, found["metadata"]["name"])

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
