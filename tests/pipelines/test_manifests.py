"""The manifests provide what the compiled pipeline asks its namespace for, and every setting reaches the steps that read it."""

import pytest
import yaml

from erasediff.records.settings import LedgerSettings, LogSettings, RollOutSettings, ServiceSettings, SigningSettings
from erasediff.steps.table import ENVIRONMENT, STEPS
from pipelines import tasks
from pipelines.compile import COMPILED
from tests.manifests.built import OVERLAYS, built, of_kind

ADDRESSES = {"MLFLOW_TRACKING_URI", "ERASEDIFF_DVC_REMOTE", "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_volume_claim_and_the_settings_have_the_names_that_the_pipeline_mounts(overlay):
    objects = built(f"overlays/{overlay}")
    assert tasks.WORKDIR_CLAIM in of_kind(objects, "PersistentVolumeClaim")
    provided = of_kind(objects, "ConfigMap")[tasks.SETTINGS_CONFIG_MAP]["data"]
    read = {name for row in STEPS for name in row.settings}
    assert ADDRESSES <= set(provided) <= read


def test_the_secret_of_the_pipeline_is_the_operators():
    assert not [name for overlay in OVERLAYS for name in of_kind(built(f"overlays/{overlay}"), "Secret")]


def given_to(step: str) -> set[str]:
    """The keys of the ConfigMap that a step's pod gets."""
    _, platform = yaml.safe_load_all((COMPILED / "erasure-gpu.yaml").read_text())
    executor = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step.replace('_', '-')}"]
    return {pair["configMapKey"] for source in executor["configMapAsEnv"] for pair in source["keyToEnv"]}


@pytest.mark.parametrize("step", ["check_prerequisites", "roll_out", "promote"])
def test_every_setting_of_a_release_reaches_the_steps_of_a_release(step):
    """Control: a step that rolls nothing out gets the services' alone."""
    for settings in (ServiceSettings, RollOutSettings, LedgerSettings, SigningSettings):
        assert set(settings.variables()) <= given_to(step)
    assert given_to("evaluate") == set(ENVIRONMENT)


def test_the_form_of_the_log_reaches_every_step():
    """Control: a release's settings do not."""
    given = {row.name: given_to(row.name) for row in STEPS}
    assert [name for name, keys in given.items() if not set(LogSettings.variables()) <= keys] == []
    assert [name for name, keys in given.items() if not set(LedgerSettings.variables()) <= keys]


def test_a_variable_is_the_one_that_is_read_and_no_secret():
    assert LedgerSettings.variables()[:2] == ("ERASEDIFF_LEDGER_OWN_DAYS", "ERASEDIFF_LEDGER_ZONE"), "the address may hold a password"
    assert "ERASEDIFF_SIGNING_PASSPHRASE" not in SigningSettings.variables()
    assert "ERASEDIFF_MLFLOW_BACKEND_STORE_URI" not in ServiceSettings.variables()


@pytest.mark.parametrize("settings", [ServiceSettings, LogSettings, RollOutSettings, LedgerSettings, SigningSettings])
def test_control_what_is_named_is_read(settings, monkeypatch):
    for name in settings.variables():
        monkeypatch.delenv(name, raising=False)
    before = settings.model_validate({}).model_dump()
    changed = 0
    for name in settings.variables():
        for value in ("7", "json", "kserve", "Always", "Knative", "/x", "a", "abcdef0", "Europe/Berlin"):
            monkeypatch.setenv(name, value)
            try:
                found = settings().model_dump()
            except ValueError:
                continue
            if found != before:
                changed += 1
                break
        monkeypatch.delenv(name)
    assert changed == len(settings.variables())
