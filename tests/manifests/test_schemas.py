"""The API server will take them: every object follows the schema of its kind, and no field is one that it would drop without a word."""

import copy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.kubeflow.crd import FOLDER as CRDS
from tests.manifests.built import BUILT, ROOT, built

NEWEST = kubernetes_validate.latest_version()


def is_custom(found):
    return found["apiVersion"].split("/")[0] in ("serving.kserve.io", "trainer.kubeflow.org")


def closed(schema):
    """The same schema, in which an unknown field is an error: the API server prunes it and says nothing."""
    if isinstance(schema, list):
        return [closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(inner) for key, inner in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    return result


def custom_schema(api_version, kind):
    group, version = api_version.split("/")
    with (CRDS / f"{group}_{kind.lower()}s.yaml").open() as file:
        versions = yaml.load(file, yaml.CSafeLoader)["spec"]["versions"]  # the slower loader takes a minute
    schema = closed(next(found for found in versions if found["name"] == version)["schema"]["openAPIV3Schema"])
    return schema | {"properties": schema["properties"] | {"metadata": {"type": "object"}}}


@pytest.mark.parametrize("folder", BUILT)
def test_every_object_follows_kubernetes_own_schema(folder):
    for found in built(folder):
        if not is_custom(found):
            kubernetes_validate.validate(copy.deepcopy(found), NEWEST, strict=True)


def test_control_a_field_that_kubernetes_does_not_know_is_found():
    policy = copy.deepcopy(next(found for found in built("overlays/dev") if found["kind"] == "NetworkPolicy"))
    policy["spec"]["egres"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(policy, NEWEST, strict=True)


needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"the schemas of KServe and of Kubeflow Trainer are not at {CRDS}: lay their CRDs there.")


@needs_crds
@pytest.mark.parametrize(("folder", "kind"), [("overlays/prod-kubeflow", "ServingRuntime"), ("by-hand", "InferenceService")])
def test_every_custom_object_follows_its_definition(folder, kind):
    (found,) = [found for found in built(folder) if found["kind"] == kind]
    # Straight to the errors: that the definitions themselves are valid schemas takes a minute to see.
    validator = jsonschema.Draft7Validator(custom_schema(found["apiVersion"], kind))
    assert [error.message for error in validator.iter_errors(found)] == []
    misspelt = copy.deepcopy(found)  # control
    misspelt["spec"]["replcas"] = 1
    assert ["replcas" in error.message for error in validator.iter_errors(misspelt)] == [True]


def test_the_overlays_without_kubeflow_need_no_custom_definition():
    """They apply to any cluster."""
    assert not [found["kind"] for name in ("dev", "prod", "single-user") for found in built(f"overlays/{name}") if is_custom(found)]
    assert {found["kind"] for found in built("overlays/prod-kubeflow") if is_custom(found)} == {"ServingRuntime"}


def test_every_manifest_is_in_an_overlay_or_stands_for_itself():
    """One that no kustomization names would be applied by nobody."""
    for folder in {path.parent for path in (ROOT / "manifests").rglob("*.yaml")}:
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named = {*kustomization.get("resources", ()), *(patch.get("path") for patch in kustomization.get("patches", ()))}
        assert {path.name for path in Path(folder).glob("[!.]*.yaml")} - {"kustomization.yaml"} <= named
