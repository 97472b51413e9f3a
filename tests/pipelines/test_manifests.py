"""The manifests provide what the compiled pipeline asks its namespace for."""

import pytest

from erasediff.steps.table import ENVIRONMENT
from pipelines import tasks
from tests.manifests.built import OVERLAYS, built, of_kind


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_volume_claim_and_the_settings_have_the_names_that_the_pipeline_mounts(overlay):
    objects = built(f"overlays/{overlay}")
    assert tasks.WORKDIR_CLAIM in of_kind(objects, "PersistentVolumeClaim")
    provided = of_kind(objects, "ConfigMap")[tasks.SETTINGS_CONFIG_MAP]["data"]
    assert set(ENVIRONMENT) <= set(provided)
    assert all(name in ENVIRONMENT or name == "AWS_ENDPOINT_URL_S3" or name.startswith("ERASEDIFF_ROLL_OUT_") for name in provided)


def test_the_secret_of_the_pipeline_is_the_operators():
    assert not [name for overlay in OVERLAYS for name in of_kind(built(f"overlays/{overlay}"), "Secret")]
