"""``FakeKfpApi``: the part of Kubeflow Pipelines' v2beta1 REST API that a submission needs, strict and in memory.

Bodies and answers are held against the models of ``kfp_server_api``, which are generated from the API's own definition, and
an uploaded file against the protobuf of a pipeline. What is not known here is refused. No real backend stands behind this.
"""

import base64
import datetime
import json
import re
from email.parser import BytesParser
from email.policy import HTTP

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.kubeflow.server import FakeApi, Refused

PREFIX = "/apis/v2beta1"
NOW = "2026-01-01T00:00:00Z"
LISTED = {"page_token", "page_size", "sort_by", "filter"}
# method, path, the query parameters it knows, the model of its body
ROUTES = [
    ("GET", "/healthz", set(), None, "health"),
    ("GET", "/experiments", LISTED | {"namespace"}, None, "list_experiments"),
    ("POST", "/experiments", set(), "V2beta1Experiment", "create_experiment"),
    ("GET", "/pipelines", LISTED | {"namespace"}, None, "list_pipelines"),
    ("POST", "/pipelines", set(), "V2beta1Pipeline", "create_pipeline"),
    ("POST", "/pipelines/upload_version", {"name", "display_name", "pipelineid", "description", "tags"}, "file", "upload_version"),
    ("GET", "/pipelines/([^/]+)/versions", LISTED, None, "list_versions"),
    ("POST", "/runs", {"experiment_id"}, "V2beta1Run", "create_run"),
    ("GET", "/runs", LISTED | {"namespace", "experiment_id"}, None, "list_runs"),
    ("GET", "/runs/([^/:]+)", {"experiment_id"}, None, "get_run"),
    ("GET", "/runs/([^/:]+)/nodes/([^/:]+)/artifacts/([^/:]+):read", set(), None, "read_artifact"),
    ("POST", "/runs/([^/:]+):terminate", {"experiment_id"}, "empty", "terminate_run"),
    ("GET", "/recurringruns", LISTED | {"namespace", "experiment_id"}, None, "list_schedules"),
    ("POST", "/recurringruns", set(), "V2beta1RecurringRun", "create_schedule"),
    ("POST", "/recurringruns/([^/:]+):(enable|disable)", set(), "empty", "switch_schedule"),
    ("DELETE", "/recurringruns/([^/:]+)", {"propagation_policy"}, None, "delete_schedule"),
]
ANSWERS = {
    "health": "V2beta1GetHealthzResponse",
    "list_experiments": "V2beta1ListExperimentsResponse",
    "create_experiment": "V2beta1Experiment",
    "list_pipelines": "V2beta1ListPipelinesResponse",
    "create_pipeline": "V2beta1Pipeline",
    "upload_version": "V2beta1PipelineVersion",
    "list_versions": "V2beta1ListPipelineVersionsResponse",
    "create_run": "V2beta1Run",
    "list_runs": "V2beta1ListRunsResponse",
    "get_run": "V2beta1Run",
    "read_artifact": "dict(str, str)",
    "terminate_run": "object",
    "list_schedules": "V2beta1ListRecurringRunsResponse",
    "create_schedule": "V2beta1RecurringRun",
    "switch_schedule": "object",
    "delete_schedule": "object",
}
PLAIN = {"str": str, "bool": bool, "int": int, "object": object}


def conform(value: object, kind: str, where: str) -> None:
    """Hold a JSON value against a type of the generated models.

    Raises:
        Refused: 400, as the gateway answers a body that does not parse.
    """
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        for index, item in enumerate(_is(value, list, where)):
            conform(item, match[1], f"{where}[{index}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        for key, item in _is(value, dict, where).items():
            conform(item, match[1], f"{where}.{key}")
    elif kind == "datetime":
        datetime.datetime.fromisoformat(_is(value, str, where))
    elif kind in PLAIN:
        # protobuf writes an int64 as a string and reads it as a string or a number
        _is(value, (str, int) if where.endswith(("max_concurrency", "interval_second")) else PLAIN[kind], where)
    else:
        _conform_to_model(value, getattr(kfp_server_api, kind), where)


def _conform_to_model(value: object, model: type, where: str) -> None:
    if hasattr(model, "allowable_values"):
        if value not in model.allowable_values:
            raise Refused(400, f"{where}: {value!r} is none of {model.allowable_values}")
        return
    names = {model.attribute_map[field]: kind for field, kind in model.openapi_types.items()}
    for name, inner in _is(value, dict, where).items():
        if name not in names:
            raise Refused(400, f"{where}: unknown field {name!r}")
        conform(inner, names[name], f"{where}.{name}")


def _is(value: object, kind: object, where: str) -> object:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Refused(400, f"{where}: {value!r} has the wrong type")
    return value


class FakeKfpApi(FakeApi):
    """A backend of one or of several users.

    Args:
        token: the bearer token that every request must bring.
        multi_user: whether namespaces are asked for.
        page: how many items a page of a list holds.
    """

    def __init__(self, token: str | None = None, multi_user: bool = False, page: int = 100) -> None:
        super().__init__()
        self.token, self.multi_user, self.page = token, multi_user, page
        self.experiments: list[dict] = []
        self.pipelines: list[dict] = []
        self.versions: list[dict] = []
        self.runs: list[dict] = []
        self.schedules: list[dict] = []
        self.instead: dict[str, object] = {}  # by the operation's name: what it answers in place of the truth
        self.looks: list[dict] = []  # what the next looks at a run find, as recorded; the last one stays
        self.logs: dict[str, str] = {}  # of pods, by Argo's names
        self.terminated: list[str] = []
        self.log: list[str] = []
        self.most_enabled = 0  # schedules at once
        self._ids = 0

    def changes(self) -> list[str]:
        """The operations that changed something, in order."""
        return [name for name in self.log if not name.startswith(("list_", "get_")) and name != "health"]

    def answer(self, method, path, query, headers, body):
        if not path.startswith(PREFIX):
            raise Refused(404, f"no such path: {path}")
        route = next((r for r in ROUTES if r[0] == method and re.fullmatch(r[1], path.removeprefix(PREFIX))), None)
        if route is None:
            raise Refused(404, f"no such operation: {method} {path}")
        _, pattern, known, kind, name = route
        identifiers = re.fullmatch(pattern, path.removeprefix(PREFIX)).groups()
        if self.token is not None and headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, "the request is not authenticated")
        asked = dict(query)
        if unknown := set(asked) - known:
            raise Refused(400, f"unknown query parameters {sorted(unknown)}")
        if len(asked) != len(query):
            raise Refused(400, "a query parameter is given twice")
        self.log.append(name)
        if name in self.instead:
            instead = self.instead[name]
            if isinstance(instead, Refused):
                raise instead
            return instead
        answer = getattr(self, name)(*identifiers, asked, self._body(kind, headers, body))
        conform(answer, ANSWERS[name], name)
        self.most_enabled = max(self.most_enabled, sum(s["mode"] == "ENABLE" for s in self.schedules))
        return answer

    def error(self, refused: Refused) -> dict:
        return {"error": refused.message, "code": 3, "message": refused.message, "details": []}

    def _body(self, kind: str | None, headers, body: bytes) -> object:
        if kind is None or kind == "empty":
            if body and json.loads(body):
                raise Refused(400, "no body is expected")
            return None
        if kind == "file":
            return self._file(headers, body)
        if headers.get_content_type() != "application/json":
            raise Refused(415, "the body has to be JSON")
        try:
            document = json.loads(body)
        except ValueError:
            raise Refused(400, "the body is not JSON") from None
        conform(document, kind, kind)
        return document

    def _file(self, headers, body: bytes) -> bytes:
        message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
        parts = {part.get_param("name", header="Content-Disposition"): part.get_payload(decode=True) for part in message.iter_parts()}
        if set(parts) != {"uploadfile"}:
            raise Refused(400, f"the form has to hold one uploadfile, not {sorted(map(str, parts))}")
        return parts["uploadfile"]

    def _id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}-{self._ids}"

    def _listed(self, key: str, items: list[dict], asked: dict, **wanted: str) -> dict:
        chosen = [i for i in items if all(i.get(k, "") == v for k, v in wanted.items() if v is not None)]
        if "filter" in asked:
            conform(json.loads(asked["filter"]).get("predicates"), "list[object]", "filter.predicates")
            for predicate in json.loads(asked["filter"])["predicates"]:
                if predicate.get("operation") not in ("EQUALS", 1) or set(predicate) != {"operation", "key", "stringValue"}:
                    raise Refused(400, f"a predicate that the fake does not know: {predicate}")
                chosen = [i for i in chosen if i[predicate["key"]] == predicate["stringValue"]]
        start = int(asked.get("page_token") or 0)
        end = start + min(self.page, int(asked.get("page_size") or 20))
        more = {"next_page_token": str(end)} if end < len(chosen) else {}
        return {key: chosen[start:end], "total_size": len(chosen)} | more

    def health(self, asked, _):
        return {"multi_user": self.multi_user}

    def _check_namespace(self, namespace: str | None) -> None:
        if self.multi_user and not namespace:
            raise Refused(400, "a namespace is needed in multi-user mode")

    def list_experiments(self, asked, _):
        self._check_namespace(asked.get("namespace"))
        return self._listed("experiments", self.experiments, asked, namespace=asked.get("namespace"))

    def create_experiment(self, asked, body):
        self._check_namespace(body.get("namespace"))
        if not body.get("display_name"):
            raise Refused(400, "an experiment needs a display_name")
        made = {"namespace": ""} | body | {"experiment_id": self._id("experiment"), "created_at": NOW}
        self.experiments.append(made)
        return made

    def list_pipelines(self, asked, _):
        return self._listed("pipelines", self.pipelines, asked, namespace=asked.get("namespace"))

    def create_pipeline(self, asked, body):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", body.get("name", "")) or len(body["name"]) > 63:
            raise Refused(400, "a pipeline's name has to be a DNS label")
        if any(p["name"] == body["name"] and p["namespace"] == body.get("namespace", "") for p in self.pipelines):
            raise Refused(409, f"pipeline {body['name']} already exists")
        made = {"namespace": ""} | body | {"pipeline_id": self._id("pipeline"), "created_at": NOW}
        self.pipelines.append(made)
        return made

    def list_versions(self, pipeline, asked, _):
        self._known(self.pipelines, "pipeline_id", pipeline)
        return self._listed("pipeline_versions", self.versions, asked, pipeline_id=pipeline)

    def upload_version(self, asked, content):
        self._known(self.pipelines, "pipeline_id", asked.get("pipelineid"))
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", asked.get("name", "")) or len(asked["name"]) > 63:
            raise Refused(400, "a version's name has to be a DNS label")
        if any((v["pipeline_id"], v["name"]) == (asked["pipelineid"], asked["name"]) for v in self.versions):
            raise Refused(409, "this version already exists")
        spec, *platform = yaml.safe_load_all(content)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        for document in platform:
            json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
        names = {"pipeline_id": asked["pipelineid"], "name": asked["name"], "display_name": asked["name"]}
        made = names | {"pipeline_version_id": self._id("version"), "created_at": NOW, "pipeline_spec": {"pipeline_spec": spec}}
        self.versions.append(made)
        return made

    def _known(self, items: list[dict], key: str, value: object) -> dict:
        found = [item for item in items if item[key] == value]
        if not found:
            raise Refused(404, f"there is no {key} {value!r}")
        return found[0]

    def _check_run(self, body: dict) -> None:
        """What a run and a schedule have in common: they exist in an experiment, and their parameters are the version's."""
        self._known(self.experiments, "experiment_id", body.get("experiment_id"))
        reference = body.get("pipeline_version_reference") or {}
        version = self._known(self.versions, "pipeline_version_id", reference.get("pipeline_version_id"))
        if version["pipeline_id"] != reference.get("pipeline_id"):
            raise Refused(400, "the version is of another pipeline")
        if not body.get("display_name"):
            raise Refused(400, "a display_name is needed")
        inputs = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        given = body.get("runtime_config", {}).get("parameters", {})
        if missing := {n for n, i in inputs.items() if not i.get("isOptional") and "defaultValue" not in i} - set(given):
            raise Refused(400, f"parameters are missing: {sorted(missing)}")
        if unknown := set(given) - set(inputs):
            raise Refused(400, f"unknown parameters: {sorted(unknown)}")

    def create_run(self, asked, body):
        self._check_run(body)
        made = body | {"run_id": self._id("run"), "created_at": NOW, "state": "PENDING"}
        self.runs.append(made)
        return made

    def list_runs(self, asked, _):
        return self._listed(
            "runs", self.runs[::-1] if asked.get("sort_by") == "created_at desc" else self.runs, asked, experiment_id=asked.get("experiment_id")
        )

    def get_run(self, identifier, asked, _):
        found = self._known(self.runs, "run_id", identifier)
        seen = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0] if self.looks else {}
        return found | {name: seen[name] for name in ("state", "run_details") if name in seen}

    def read_artifact(self, run, node, artifact, asked, _):
        """As the source of the API server has it (``run_artifact_server.go``): no answer of a real one was recorded."""
        self._known(self.runs, "run_id", run)
        if artifact != "main-logs" or node not in self.logs:
            raise Refused(404, f"Failed to read artifact: artifact runs/{run}/nodes/{node}/artifacts/{artifact} not found")
        return {"data": base64.b64encode(self.logs[node].encode()).decode()}

    def terminate_run(self, identifier, asked, _):
        self.terminated.append(self._known(self.runs, "run_id", identifier)["run_id"])
        return {}

    def list_schedules(self, asked, _):
        return self._listed("recurringRuns", self.schedules, asked, experiment_id=asked.get("experiment_id"))

    def create_schedule(self, asked, body):
        self._check_run(body)
        cron = body.get("trigger", {}).get("cron_schedule", {}).get("cron", "")
        if len(cron.split()) not in (5, 6):  # five too: the real one takes them, and reads them one field off
            raise Refused(400, f"cron {cron!r} is not valid")
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise Refused(400, "max_concurrency has to be from 1 to 10")
        made = body | {"recurring_run_id": self._id("schedule"), "created_at": NOW, "max_concurrency": str(body["max_concurrency"])}
        self.schedules.append(made)
        return made

    def switch_schedule(self, identifier, verb, asked, _):
        self._known(self.schedules, "recurring_run_id", identifier)["mode"] = verb.upper()
        return {}

    def delete_schedule(self, identifier, asked, _):
        self.schedules.remove(self._known(self.schedules, "recurring_run_id", identifier))
        return {}
