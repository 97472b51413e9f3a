"""The manifests provide what the compiled pipeline asks its namespace for."""

from pathlib import Path

import yaml

from pipelines import tasks

BASE = Path(__file__).parent.parent.parent / "manifests/base"


def documents():
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    return {d["kind"]: d for d in (yaml.safe_load((BASE / name).read_text()) for name in kustomization["resources"])}


def test_the_volume_claim_and_the_settings_have_the_names_that_the_pipeline_mounts():
    provided = documents()
    assert provided["PersistentVolumeClaim"]["metadata"]["name"] == tasks.WORKDIR_CLAIM
    assert provided["ConfigMap"]["metadata"]["name"] == tasks.SETTINGS_CONFIG_MAP
    assert set(provided["ConfigMap"]["data"]) == set(tasks.ENVIRONMENT)


def test_no_secret_is_in_the_manifests():
    assert "Secret" not in documents()
