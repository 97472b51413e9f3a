"""What the overlays promise: dev starts by itself, prod survives the loss of a node, and neither lets a forgotten class back in."""

import re

import pytest
import yaml

from erasediff.rollout.objects import ISSUER_CONFIG_MAP
from tests.manifests.built import OVERLAYS, ROOT, built, of_kind, pods

DIGEST = re.compile(r"^[^\s:@]+(:\d+)?(/[^\s:@]+)*@sha256:[0-9a-f]{64}$")
DOCUMENT = (ROOT / "docs/kubernetes.md").read_text()


def images(objects):
    found = [container["image"] for _, pod in pods(objects) for container in pod["containers"]]
    return [*found, of_kind(objects, "ConfigMap")["erasediff-settings"]["data"]["ERASEDIFF_ROLL_OUT_IMAGE"]]


@pytest.mark.parametrize("overlay", ["prod", "prod-kubeflow"])
def test_production_names_every_image_by_its_digest(overlay):
    """A tag can be moved under a verdict's feet. The image of the pods that a roll-out makes is a setting and not in any pod here."""
    assert [image for image in images(built(f"overlays/{overlay}")) if not DIGEST.match(image)] == []


def test_control_a_tag_is_no_digest():
    assert [image for image in images(built("overlays/dev")) if not DIGEST.match(image)]
    assert DIGEST.match(f"registry:5000/a/b@sha256:{'0' * 64}")


def test_the_images_are_those_of_the_components():
    from components.images import PIPELINE_CPU, SERVE

    assert set(images(built("overlays/dev"))) == {PIPELINE_CPU, SERVE}


@pytest.mark.parametrize("overlay", ["prod", "prod-kubeflow"])
def test_production_has_two_of_everything_that_answers_and_loses_one_at_a_time(overlay):
    objects = built(f"overlays/{overlay}")
    assert int(of_kind(objects, "ConfigMap")["erasediff-settings"]["data"]["ERASEDIFF_ROLL_OUT_REPLICAS"]) >= 2
    assert all(found["spec"]["replicas"] >= 2 for found in of_kind(objects, "Deployment").values())
    guarded = [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(objects, "PodDisruptionBudget").values()]
    assert {"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/part-of": "erasediff"} in guarded
    assert {"app.kubernetes.io/instance": "erasediff", "app.kubernetes.io/component": "serving"} in guarded


def test_no_overlay_holds_the_rules_of_serving():
    """Applied again, they would lower the minimum epoch that a promotion has raised, and a model from before an erasure could come back."""
    for overlay in OVERLAYS:
        assert "erasediff-serving" not in of_kind(built(f"overlays/{overlay}"), "ConfigMap")
    rules = of_kind(built("once"), "ConfigMap")["erasediff-serving"]["data"]["rules.yaml"]
    assert yaml.safe_load(rules) == {"minimum_epoch": 0, "revoked": [], "suppress": []}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_pod_refers_to_is_there(overlay):
    """A name that nothing has leaves a pod waiting for ever. Secrets and the public key are the operator's; the document has to name them."""
    objects = (*built(f"overlays/{overlay}"), *built("once"))
    there = {kind: of_kind(objects, kind) for kind in ("ConfigMap", "PersistentVolumeClaim", "ServiceAccount")}
    for name, pod in pods(objects):
        if "serviceAccountName" in pod:
            assert pod["serviceAccountName"] in there["ServiceAccount"], name
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                used = volume["configMap"]["name"]
                assert used in there["ConfigMap"] or (used == ISSUER_CONFIG_MAP and f"`{used}`" in DOCUMENT), name
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in there["PersistentVolumeClaim"], name
        for container in pod["containers"]:
            for source in container.get("envFrom", ()):
                assert "configMapRef" not in source or source["configMapRef"]["name"] in there["ConfigMap"], name
                assert "secretRef" not in source or f"`{source['secretRef']['name']}`" in DOCUMENT, name
            for key in (v["valueFrom"]["secretKeyRef"] for v in container.get("env", ()) if "secretKeyRef" in (v.get("valueFrom") or {})):
                assert f"`{key['name']}`" in DOCUMENT, name
                assert f"`{key['key']}`" in DOCUMENT, name


def test_the_gates_policies_in_the_cluster_are_the_shipped_ones():
    there = of_kind(built("overlays/prod"), "ConfigMap")["erasediff-policies"]["data"]
    assert there == {path.name: path.read_text() for path in (ROOT / "policies").glob("*.yaml") if path.name != "kustomization.yaml"}
