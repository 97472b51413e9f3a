"""``RecordedKServe``: a namespace without an API server, in which an InferenceService's status is what KServe 0.20 was recorded to write.

Beside it every predictor of the present spec has a Service, named as the recorded one, and ready pods at addresses of this machine. A Service's
endpoints are the pods that it selects. ``make test-cluster`` asks a real API server and has real pods; what is played here is the controller alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import ENDPOINTS, INFERENCE_SERVICE, POD, SERVICE, Kind, Object
from erasediff.cluster.deadline import Deadline
from erasediff.rollout.kserve import service_name
from erasediff.rollout.kserve_standard import SHARED_LABEL
from erasediff.rollout.objects import ISSUER_CONFIG_MAP, ISSUER_KEY
from tests.kubeflow.fake_trainer import RECORDED

FIRST, SECOND = "m97b92e6115", "m36ee2738eb"
"""The names of the two predictors in the recording."""


def recorded(first: str = FIRST, second: str = SECOND) -> list[Object]:
    """The recorded InferenceServices in order of time, with other names of their predictors."""
    text = (RECORDED / "inferenceservice.jsonl").read_text().replace(FIRST, first).replace(SECOND, second)
    return [json.loads(line) for line in text.splitlines()]


def selector_of(predictor: str) -> dict[str, str]:
    """The label by which KServe's Service of a predictor selects its pods."""
    return {"app": f"isvc.{service_name('erasediff', predictor)}"}


class RecordedKServe:
    """Each applied spec moves on to the next recorded generation, and each look at it to that generation's next status.

    What is applied has to be what was applied then: the same predictors, canaries and shares. A spec that differs in the number of pods alone is
    no new generation here, since none was recorded. ``addresses`` are the IPs of the predictors' pods, by the predictors' names.
    """

    namespace = "erasediff"

    def __init__(self, first: str, second: str, addresses: dict[str, list[str]]) -> None:
        issuer = {"metadata": {"name": ISSUER_CONFIG_MAP}, "data": {ISSUER_KEY: ""}}  # the operator's; nothing here reads the key
        self.objects: dict[tuple[str, str], Object] = {("ConfigMap", ISSUER_CONFIG_MAP): issuer}
        self.applied: list[Object] = []
        self.moves: list[tuple[int, Object]] = []
        """Each selector of a Service that was written, with the generation at that time."""
        self._addresses = addresses
        self._recording = recorded(first, second)
        self._present: Object | None = None
        self._statuses: list[Object] = []

    def get(self, kind: Kind, name: str) -> Object | None:
        if kind == ENDPOINTS:
            service = self.get(SERVICE, name)
            pods = [] if service is None else self.list(POD, service["spec"]["selector"])
            return {"subsets": [{"addresses": [{"targetRef": {"name": pod["metadata"]["name"]}} for pod in pods]}]}
        if kind != INFERENCE_SERVICE:
            return copy.deepcopy(self.objects.get((kind.kind, name)) or self._services().get(name if kind == SERVICE else ""))
        if self._present is not None and self._statuses:
            self._present["status"] = self._statuses.pop(0)
        return copy.deepcopy(self._present)

    def _predictors(self) -> list[str]:
        """The names of the predictors of the present spec."""
        spec = {} if self._present is None else self._present["spec"]
        return [one["name"] for one in (spec.get("predictor"), *(entry["predictor"] for entry in spec.get("canary", ()))) if one]

    def _services(self) -> dict[str, Object]:
        return {service_name("erasediff", name): {"spec": {"selector": selector_of(name)}} for name in self._predictors()}

    def list(self, kind: Kind, labels: dict[str, str]) -> list[Object]:
        assert kind == POD
        ready = [{"type": "Ready", "status": "True"}]
        found = []
        for name in self._predictors():
            own = {**selector_of(name), SHARED_LABEL: "erasediff"}
            if labels.items() <= own.items():
                pods = {f"{name}-{ip}": ip for ip in self._addresses[name]}
                found += [{"metadata": {"name": pod}, "status": {"podIP": ip, "conditions": ready}} for pod, ip in pods.items()]
        return found

    def create(self, kind: Kind, body: Object) -> Object:
        if (key := (kind.kind, body["metadata"]["name"])) in self.objects:
            raise ObjectConflict(f"{key} is there")
        return self.replace(kind, body)

    def replace(self, kind: Kind, body: Object) -> Object:
        self.objects[kind.kind, body["metadata"]["name"]] = copy.deepcopy(body)
        if kind == SERVICE:
            self.moves.append((len(self.applied), body["spec"]["selector"]))
        return body

    def change(self, kind: Kind, name: str, edit: Callable[[Object], Object | None]) -> Object:
        present = self.get(kind, name)
        assert present is not None
        edited = edit(present)
        return present if edited is None else self.replace(kind, edited)

    def apply(self, kind: Kind, body: Object) -> Object:
        if self._present is not None and essence(body["spec"]) == essence(self._present["spec"]):
            return copy.deepcopy(self._present)
        self.applied.append(copy.deepcopy(body["spec"]))
        generation = len(self.applied)
        lines = [line for line in self._recording if line["metadata"]["generation"] == generation]
        wanted = lines[0]["spec"]
        assert essence(body["spec"]) == essence(wanted), f"generation {generation} was another one"
        self._present = {**copy.deepcopy(body), "metadata": {**body["metadata"], "generation": generation}}
        self._statuses = [line["status"] for line in lines]
        return copy.deepcopy(self._present)

    def wait(self, kind: Kind, name: str, decide: Callable[[Object | None], Any], deadline: Deadline, what: str) -> Any:
        while (found := decide(self.get(kind, name))) is None:
            deadline.check(what)
        return found


def essence(spec: Object) -> Object:
    """The predictors by name, and the canaries with their shares."""
    return {
        "predictor": spec["predictor"]["name"],
        "canary": [(entry["predictor"]["name"], entry["trafficPercent"]) for entry in spec.get("canary", ())],
    }
