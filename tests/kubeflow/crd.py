"""Validation by a CustomResourceDefinition as an API server does it, but stricter: an unknown field is refused, not pruned."""

import os
from pathlib import Path

import jsonschema
import pytest
import yaml

FOLDER = Path(os.environ.get("ERASEDIFF_CRDS") or Path(__file__).parents[3] / "shared/crds")
TRAINJOB = FOLDER / "trainer.kubeflow.org_trainjobs.yaml"


def needed(path: Path = TRAINJOB) -> Path:
    """The file of a CRD; the test is skipped where it is not at hand."""
    if not path.is_file():
        pytest.skip(f"needs {path.name} of Kubeflow Trainer: set ERASEDIFF_CRDS to a folder that has it.")
    return path


def schema(path: Path = TRAINJOB) -> dict:
    """The JSON schema of a CRD's served version."""
    definition = yaml.load(needed(path).read_text(), yaml.CSafeLoader)
    (version,) = (v for v in definition["spec"]["versions"] if v["served"])
    return strict(version["schema"]["openAPIV3Schema"] | {"required": ["apiVersion", "kind", "metadata", "spec"]}, top=True)


def strict(node: dict, top: bool = False) -> dict:
    """The schema with every object closed; metadata, of which a CRD says nothing, stays open."""
    node = dict(node)
    if node.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in node:
        node["properties"] = {k: v if top and k == "metadata" else strict(v) for k, v in node["properties"].items()}
        node["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = strict(node[key])
    return node


def problems(document: dict, of: dict) -> list[str]:
    """What is wrong with a document, and where."""
    errors = jsonschema.Draft202012Validator(of).iter_errors(document)
    return [f"{'.'.join(str(p) for p in e.absolute_path)}: {e.message}" for e in errors]
