"""The lie: 'words stay at home', of a document that a run hands to Kubeflow and that has room for them.

tests/e2e/test_runners.py searches what a whole run hands over.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from erasediff.attempts.workdir import Workdir
from erasediff.cli import main
from erasediff.errors import BadInput
from erasediff.files import shipped
from erasediff.records.base import Strict
from erasediff.records.config import RunConfig
from erasediff.records.policy import GatePolicy, load_policy
from erasediff.records.positions import PositionedRequest
from erasediff.steps.component import Documents, perform_component
from erasediff.submit import request_for
from pipelines.compile import COMPILED
from tests.digits import handed
from tests.e2e.numbers import QUICK, write_images
from tests.kubeflow.fake_kfp import FakeKfpApi
from tests.kubeflow.handed_over import CONCEPT, FULL_NAME, PLACE, WORDS, compiled_files, holding

WORD = "Featherstonehaugh"
DOCUMENTS: dict[str, type[Strict]] = {"config": RunConfig, "policy": GatePolicy, "request": PositionedRequest}
"""The parameters of the pipeline that are documents, and their schemas."""
FREE = {
    "config.dataset.name": "a registered name",
    "config.dataset.path": "a path",
    "config.model_name": "a registered name",
    "config.detector.path": "a path",
    "config.features.path": "a path",
    "config.purge.places[]": "a path",
    "policy.name": "a registered name",
    "request.dataset": "a registered name",
}
"""Every field of a document that takes a word of one's own, and what for. Add none that is meant for a prompt or a person's name."""
PARAMETERS = {*DOCUMENTS, "workdir", "if_busy", "training_cpu", "training_memory", "training_gpus"}


_CLOSED = {"enum", "const", "anyOf", "allOf", "oneOf"}


def free_fields(schema: dict[str, Any], node: dict[str, Any], where: str) -> Iterator[str]:
    """The fields below a node of a JSON schema that a word fits, and the objects that take a field that they do not name."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    for other in (*node.get("anyOf", ()), *node.get("allOf", ()), *node.get("oneOf", ())):
        yield from free_fields(schema, other, where)
    if "properties" in node:
        if node.get("additionalProperties", True) is not False:
            yield f"{where}.*"
        for name, inner in node["properties"].items():
            yield from free_fields(schema, inner, f"{where}.{name}")
    elif node.get("type") == "object":
        yield f"{where}.*"
    elif node.get("type") == "array":
        for inner in (node.get("items", {}), *node.get("prefixItems", ())):
            yield from free_fields(schema, inner, f"{where}[]")
    elif node.get("type", "string") == "string" and not _CLOSED & node.keys() and re.search(node.get("pattern", ""), WORD):
        yield where


def free_in(name: str, model: type[Strict]) -> set[str]:
    schema = model.model_json_schema()
    return set(free_fields(schema, schema, name))


def test_every_field_that_takes_a_word_is_a_path_or_a_registered_name() -> None:
    found = {field for name, model in DOCUMENTS.items() for field in free_in(name, model)}
    assert found == set(FREE)


def test_control_a_field_for_words_is_found() -> None:
    class Worded(PositionedRequest):
        prompt: str | None = None
        others: tuple[str, ...] = ()
        more: dict[str, int] | None = None

    assert free_in("request", Worded) == {"request.dataset", "request.prompt", "request.others[]", "request.more.*"}


@pytest.mark.parametrize("file", sorted(COMPILED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_compiled_pipeline_has_no_other_parameters(file) -> None:
    """Beside the documents: a path, a word of two, and sizes. Each profile fixes the workdir, and the local runner is told it."""
    (pipeline, *_) = yaml.load_all(file.read_text(), yaml.CSafeLoader)
    assert set(pipeline["root"]["inputDefinitions"]["parameters"]) <= PARAMETERS


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("field", ["prompt", "words", "concept"])
def test_a_document_with_a_field_for_words_is_refused_and_the_words_are_not_quoted(name: str, field: str) -> None:
    """Control: without the field it is taken."""
    policy = yaml.safe_load((QUICK / "policy.yaml").read_text())
    document = {"config": {}, "policy": policy, "request": json.loads(handed(3))}[name]
    DOCUMENTS[name].parse(document, name)
    with pytest.raises(BadInput, match=f"{name} is not valid: field '{field}' is not known") as refused:
        DOCUMENTS[name].parse(document | {field: FULL_NAME}, name)
    assert holding(WORDS, {"sentence": str(refused.value).encode()}) == []


@pytest.mark.parametrize("name", [f"photos of {FULL_NAME}", f"{PLACE}/3"])
def test_a_name_that_is_none_is_refused_and_not_quoted(name: str) -> None:
    """A step's log is kept by Kubeflow, and so is its termination message."""
    with pytest.raises(BadInput, match="field 'dataset'") as refused:
        PositionedRequest.parse(json.loads(handed(3)) | {"dataset": name}, "the request")
    assert holding(WORDS, {"sentence": str(refused.value).encode()}) == []


@pytest.mark.parametrize("verb", ["submit", "schedule"])
def test_a_class_that_is_given_by_its_name_is_sent_as_a_number(tmp_path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """And what is no class, such as a concept document in the place of the configuration or the policy, is not sent at all."""
    write_images(tmp_path / "images", [FULL_NAME, *(f"{i} {WORD}" for i in range(9))])
    dataset = {"name": "people", "kind": "folder", "path": str(tmp_path / "images")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset}))
    (tmp_path / "concept.yaml").write_text(yaml.safe_dump(CONCEPT, allow_unicode=True))
    monkeypatch.setattr("socket.setdefaulttimeout", lambda _: None)
    when = ["--cron", "0 0 3 * * *"] if verb == "schedule" else []
    with FakeKfpApi() as kfp:
        options = [verb, "--host", kfp.host, "--profile", "cpu", *when, "--forget-label", FULL_NAME]
        for option in ("--config", "--policy"):
            assert main([*options, option, str(tmp_path / "concept.yaml")]) == 2
        assert main([*options, "--forget-label", "a portrait of " + FULL_NAME, "--config", str(tmp_path / "config.yaml")]) == 2
        assert kfp.requests == []
        assert main([*options, "--config", str(tmp_path / "config.yaml")]) == 0
        (sent,) = kfp.runs or kfp.schedules
        assert json.loads(sent["runtime_config"]["parameters"]["request"])["position"] == 9
        assert holding(WORDS, {"everything": json.dumps([kfp.experiments, kfp.pipelines, kfp.versions, sent]).encode()}) == []


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("wrong", [{"classes_sha256": "0" * 64}, {"position": 10}], ids=["another list", "beyond it"])
def test_a_step_in_a_pod_that_finds_no_class_names_none(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: dict[str, object]
) -> None:
    """Control: with the right list and position the attempt is opened, for the class that was named where the run was handed in."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = [FULL_NAME, *(f"{i} {WORD}" for i in range(9))]
    write_images(tmp_path / "images", names)
    dataset = {"name": "people", "kind": "folder", "path": str(tmp_path / "images")}
    config, work = RunConfig.parse({"dataset": dataset, "model_name": "people"}, "the config"), tmp_path / "work"
    policy = load_policy(QUICK / "policy.yaml").canonical().decode()
    asked = request_for(config, FULL_NAME, None)

    def opened(request: PositionedRequest) -> str:
        return perform_component(
            "check_prerequisites", str(work), documents=Documents(request.canonical().decode(), config.canonical().decode(), policy)
        ).text

    with pytest.raises(SystemExit):
        opened(asked.model_copy(update=wrong))
    said = capsys.readouterr().err
    assert "submit the request again" in said
    assert holding(WORDS, {"log": said.encode(), "failure": (work / "failure.json").read_bytes()}) == []
    assert Workdir(work).attempt(opened(asked)).plan().request.label == FULL_NAME
    assert holding(WORDS, {"log": capsys.readouterr().err.encode(), "name": asked.canonical()}) == []


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_found_in_whatever_form_it_stands(word: str) -> None:
    """The search that finds nothing in a run. Control: the project's own files hold none of the words."""
    document = json.dumps({"prompt": f"a portrait of {word}."})
    forms = {
        "plain": word.encode(),
        "capitals": word.upper().encode(),
        "JSON": document.encode(),
        "JSON in JSON": json.dumps({"config": document}).encode(),
        "JSON in JSON in JSON": json.dumps({"inputs": json.dumps({"config": document})}).encode(),
        "a URL": quote(f"a portrait of {word}").encode(),
        "Python": repr(f"a portrait of {word}".encode()).encode(),
        **{f"base64 after {i}": base64.b64encode(f"{'a' * i}{word} and more".encode()) for i in range(4)},
        "base64 of JSON": base64.urlsafe_b64encode(f"photo of {word.lower()}".encode()),
    }
    assert holding([word], forms) == sorted(forms)
    assert holding([word], {f"{word}.yaml": b""}), "names are searched too"
    assert holding([word], compiled_files() | {"policy": shipped("policies/class-conditional.yaml").read_bytes()}) == []
