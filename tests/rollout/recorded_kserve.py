"""``RecordedKServe``: a namespace without an API server, in which an InferenceService's status is what KServe 0.20 was recorded to write.

``make test-cluster`` asks a real API server; what is played here is the controller alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import INFERENCE_SERVICE, Kind, Object
from erasediff.cluster.deadline import Deadline
from tests.kubeflow.fake_trainer import RECORDED

FIRST, SECOND = "m97b92e6115", "m36ee2738eb"
"""The names of the two predictors in the recording."""


def recorded(first: str = FIRST, second: str = SECOND) -> list[Object]:
    """The recorded InferenceServices in order of time, with other names of their predictors."""
    text = (RECORDED / "inferenceservice.jsonl").read_text().replace(FIRST, first).replace(SECOND, second)
    return [json.loads(line) for line in text.splitlines()]


class RecordedKServe:
    """Each applied spec moves on to the next recorded generation, and each look at it to that generation's next status.

    What is applied has to be what was applied then: the same predictors, canaries and shares.
    """

    namespace = "erasediff"

    def __init__(self, first: str, second: str) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.applied: list[Object] = []
        self._recording = recorded(first, second)
        self._present: Object | None = None
        self._statuses: list[Object] = []

    def get(self, kind: Kind, name: str) -> Object | None:
        if kind != INFERENCE_SERVICE:
            return copy.deepcopy(self.objects.get((kind.kind, name)))
        if self._present is not None and self._statuses:
            self._present["status"] = self._statuses.pop(0)
        return copy.deepcopy(self._present)

    def list(self, kind: Kind, labels: dict[str, str]) -> list[Object]:
        return []

    def create(self, kind: Kind, body: Object) -> Object:
        if (key := (kind.kind, body["metadata"]["name"])) in self.objects:
            raise ObjectConflict(f"{key} is there")
        return self.replace(kind, body)

    def replace(self, kind: Kind, body: Object) -> Object:
        self.objects[kind.kind, body["metadata"]["name"]] = copy.deepcopy(body)
        return body

    def change(self, kind: Kind, name: str, edit: Callable[[Object], Object | None]) -> Object:
        present = self.get(kind, name)
        assert present is not None
        edited = edit(present)
        return present if edited is None else self.replace(kind, edited)

    def apply(self, kind: Kind, body: Object) -> Object:
        if self._present is not None and body["spec"] == self._present["spec"]:
            return copy.deepcopy(self._present)  # what changes nothing is no new generation
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
