"""``FakeTrainerApi``: the TrainJobs of one namespace, and a stand-in for the controller that plays their status."""

import json
from pathlib import Path

from tests.kubeflow import crd
from tests.kubeflow.server import FakeApi, Refused

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
RECORDED = Path(__file__).parent / "recorded"
PREFIX = f"/apis/{GROUP}/{VERSION}/namespaces/erasure/trainjobs"
PODS, EVENTS = "/api/v1/namespaces/erasure/pods", "/api/v1/namespaces/erasure/events"
RUNTIMES = f"/apis/{GROUP}/{VERSION}/clustertrainingruntimes"
NOW = "2026-01-01T00:00:00Z"


def recorded(name: str) -> list[dict]:
    """The statuses that Trainer 2.3 and JobSet 0.12 gave a TrainJob, in order of time."""
    return [json.loads(line)["status"] for line in (RECORDED / name).read_text().splitlines()]


CREATED, CREATED_JOB, STARTING, RUNNING, COMPLETE = recorded("trainjob-complete.jsonl")
FAILED = recorded("trainjob-deadline.jsonl")[-1]
CRASHING = recorded("trainjob-crashing.jsonl")
# Not recorded: a queue such as Kueue suspends a TrainJob, and none was at hand.
SUSPENDED = {"conditions": [{"type": "Suspended", "status": "True", "reason": "Queued", "message": "as expected", "lastTransitionTime": NOW}]}


def runtime_with(container: str, job: str = "node") -> dict:
    """A ClusterTrainingRuntime, as far as it is looked at; Trainer's own `torch-distributed` has the container `node` in the job `node`."""
    pod = {"containers": [{"name": container, "image": "pytorch/pytorch"}]}
    jobs = [{"name": job, "template": {"spec": {"template": {"spec": pod}}}}]
    runtime = {"spec": {"template": {"spec": {"replicatedJobs": jobs}}}, "metadata": {"name": "torch-distributed"}}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ClusterTrainingRuntime"} | runtime


def discovery(groups: dict[str, str]) -> dict[str, dict]:
    """What an API server says of itself by path: its version, the groups of its objects, and the kinds in them."""
    versions = {group: {"groupVersion": f"{group}/{version}", "version": version} for group, version in groups.items()}
    kind = {"name": "trainjobs", "singularName": "trainjob", "namespaced": True, "kind": "TrainJob", "verbs": ["create", "delete", "get", "list"]}
    runtime = {"name": "clustertrainingruntimes", "singularName": "", "namespaced": False, "kind": "ClusterTrainingRuntime", "verbs": ["get"]}
    pod = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
    event = {"name": "events", "singularName": "event", "namespaced": True, "kind": "Event", "verbs": ["list"]}
    return {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [pod, event]},
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [{"name": group, "versions": [version], "preferredVersion": version} for group, version in versions.items()],
        },
        **{
            f"/apis/{version['groupVersion']}": {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": version["groupVersion"],
                "resources": [kind, runtime],
            }
            for version in versions.values()
        },
    }


def _forbidden(resource: str) -> Refused:
    return Refused(403, f'{resource} is forbidden: User "x" cannot get resource "{resource}" in API group "" in the namespace "erasure"')


class FakeTrainerApi(FakeApi):
    """Each look at a TrainJob moves it on by one of ``transitions``; it stays at the last.

    Refuses what the CRD does not allow, a name that is taken, and every path but those of TrainJobs and pods in the namespace ``erasure``
    and of the discovery of ``groups``. ``pods`` are there as long as a TrainJob is, and ``logs`` are their containers' by name; ``None`` for
    ``events`` or ``runtime`` is a Role that does not allow them.
    ``troubles`` are status codes that the next requests are answered with.
    """

    def __init__(self, *transitions: dict, on_complete=lambda: None) -> None:
        super().__init__()
        self.transitions, self.on_complete = list(transitions), on_complete
        self.jobs: dict[str, dict] = {}
        self.deleted: list[str] = []
        self.troubles: list[int] = []
        self.pods: list[dict] = []
        self.logs: dict[str, str] = {}
        self.events: list[dict] | None = []
        self.runtime: dict | None = runtime_with("node")
        self.groups = {GROUP: VERSION}
        self._schema = crd.schema()

    def add(self, document: dict, status: dict | None = None) -> None:
        """A TrainJob that is there already."""
        self.jobs[document["metadata"]["name"]] = document | ({"status": status} if status else {})

    def answer(self, method, path, query, headers, body):
        if self.troubles:
            raise Refused(self.troubles.pop(0), "as told")
        if method == "GET" and path in (known := discovery(self.groups)):
            return known[path]
        if method == "GET" and path == PODS:
            selected = dict(query)["labelSelector"].removeprefix("jobset.sigs.k8s.io/jobset-name=")
            return {"kind": "PodList", "apiVersion": "v1", "items": self.pods if selected in self.jobs else []}
        if method == "GET" and path == EVENTS:
            return {"kind": "EventList", "apiVersion": "v1", "items": self._allowed(self.events, "events")}
        if method == "GET" and path.startswith(RUNTIMES):
            return self._allowed(self.runtime, "clustertrainingruntimes")
        if method == "GET" and path.startswith(PODS) and path.endswith("/log"):
            if (name := path.split("/")[-2]) not in self.logs:
                raise _forbidden("pods/log")
            return self.logs[name].encode()
        if not path.startswith(PREFIX):
            raise Refused(404, f"the server could not find {path}")
        name = path.removeprefix(PREFIX).strip("/")
        if method == "POST" and not name:
            return self._create(json.loads(body))
        if name not in self.jobs:
            raise Refused(404, f'trainjobs "{name}" not found')
        if method == "GET":
            return self._look(name)
        if method == "DELETE" and json.loads(body) == {"propagationPolicy": "Foreground"}:
            self.deleted.append(name)
            return self.jobs.pop(name)
        raise Refused(405, f"{method} with {query} and {body!r} is not known to the fake")

    def _allowed(self, found: object, resource: str) -> object:
        if found is None:
            raise _forbidden(resource)
        return found

    def _create(self, document: dict) -> dict:
        if found := crd.problems(document, self._schema):
            raise Refused(422, "; ".join(found))
        name = document["metadata"]["name"]
        if name in self.jobs:
            raise Refused(409, f'trainjobs "{name}" already exists')
        self.jobs[name] = document | {"metadata": document["metadata"] | {"creationTimestamp": NOW}}
        return self.jobs[name]

    def _look(self, name: str) -> dict:
        if "deletionTimestamp" in self.jobs[name]["metadata"]:
            return self.jobs.pop(name)  # the last look at one that goes
        if self.transitions:
            self.jobs[name]["status"] = self.transitions.pop(0)
            if self.jobs[name]["status"] is COMPLETE:
                self.on_complete()
        return self.jobs[name]

    def error(self, refused: Refused) -> dict:
        return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refused.status, "message": refused.message}
