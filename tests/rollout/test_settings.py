"""The lie: 'it is configured', of settings with which pods would find nothing."""

from __future__ import annotations

import pytest

from erasediff.errors import BadInput
from erasediff.records.settings import RollOutSettings
from erasediff.steps.table import step_named

GOOD = {"BACKEND": "deployment", "IMAGE": "serve:1", "PUBLISH_TO": "s3://models"}


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> RollOutSettings:
    for name, value in variables.items():
        monkeypatch.setenv(f"ERASEDIFF_ROLL_OUT_{name}", value)
    return RollOutSettings.load()


def test_without_settings_nothing_is_rolled_out() -> None:
    assert RollOutSettings.load().backend == "none"


def test_control_whole_settings_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, **GOOD).image == "serve:1"
    assert load(monkeypatch, PUBLISH_TO="/workdir/models", CLAIM="work").claim == "work"
    assert load(monkeypatch, BACKEND="kserve").backend == "kserve"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"BACKEND": "helm"}, "backend"),
        ({"PUBLISH_TO": ""}, "PUBLISH_TO"),
        ({"IMAGE": ""}, "ERASEDIFF_ROLL_OUT_IMAGE"),
        ({"PUBLISH_TO": "gs://models"}, "cannot publish"),
        ({"PUBLISH_TO": "/elsewhere", "CLAIM": "work"}, "pods cannot read"),
        ({"PUBLISH_TO": "/workdir/models"}, "pods cannot read"),
        ({"NAMESPACE": "Not_A_Name"}, "namespace"),
        ({"NAME": "x" * 60}, "name"),
        ({"REPLICAS": "0"}, "replicas"),
        ({"TIMEOUT_SECONDS": "soon"}, "timeout_seconds"),
    ],
)
def test_settings_that_cannot_be_end_in_one_sentence(monkeypatch: pytest.MonkeyPatch, change: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as refused:
        load(monkeypatch, **{**GOOD, **change})
    assert "\n" not in str(refused.value)


def test_the_pipeline_hands_over_settings_that_there_are() -> None:
    known = {f"ERASEDIFF_ROLL_OUT_{name.upper()}" for name in RollOutSettings.model_fields}
    handed = {name for name in step_named("roll_out").settings if name.startswith("ERASEDIFF_ROLL_OUT_")}
    assert handed
    assert handed <= known


def test_other_settings_are_another_roll_out() -> None:
    one = RollOutSettings()
    assert one.digest() == RollOutSettings().digest() != one.model_copy(update={"name": "other"}).digest()
