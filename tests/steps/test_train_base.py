"""A base is trained only where nothing was forgotten yet."""

import pytest

from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput
from erasediff.models.families.unet import build_unet
from erasediff.models.folder import save_model
from erasediff.records.config import DenoiserConfig, RunConfig
from erasediff.steps.train_base import ensure_champion
from erasediff.tracking import CHAMPION, DRIFT_TAG, MODEL_ARTIFACTS, Tracking, model_tags
from tests.digits import DIGITS
from tests.small_models import model_of

QUICK = {"base_training": {"steps": 2, "batch_size": 4}, "denoiser": {"block_out_channels": [8, 16], "norm_num_groups": 4}}


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Workdir.open(tmp_path / "work")


def register(workdir, forgotten, **more):
    tracking = Tracking(workdir.root)
    unet = build_unet(DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4), channels=1, size=8, classes=10)
    record = save_model(model_of(unet), workdir.models, "digits", DIGITS, forgotten)
    run_id = tracking.start_run("a run", {})
    source = tracking.log_artifacts(run_id, workdir.models / record.weights.uri, MODEL_ARTIFACTS)
    tracking.log_model_record(run_id, record)
    return tracking, tracking.register("digits", source, run_id, model_tags(record) | more)


def test_a_lost_alias_does_not_bring_back_what_was_forgotten(workdir):
    """A new base would learn all classes again, and the pipeline would go on as if nothing had been erased."""
    tracking, version = register(workdir, forgotten=("3",))
    with pytest.raises(BadInput, match=f"version {version} has forgotten"):
        ensure_champion(workdir, RunConfig.model_validate(QUICK))
    assert tracking.alias("digits", CHAMPION) is None


def test_control_a_base_without_its_alias_is_trained_again(workdir):
    register(workdir, forgotten=())
    assert ensure_champion(workdir, RunConfig.model_validate(QUICK)).model.forgotten == ()


def test_a_champion_is_fetched_from_the_registry_and_is_the_recorded_one(workdir):
    """Another machine has no model folder: what it downloads must be what the tags name, to the last file."""
    import shutil

    tracking, version = register(workdir, forgotten=("3",))
    tracking.set_alias("digits", CHAMPION, version)
    shutil.rmtree(workdir.models)
    base = ensure_champion(workdir, RunConfig.model_validate(QUICK))
    assert base.model.forgotten == ("3",)
    scheduler = workdir.models / base.model.weights.uri / "scheduler/scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("squaredcos_cap_v2", "linear"))
    with pytest.raises(BadInput, match="beside the weights"):
        ensure_champion(workdir, RunConfig.model_validate(QUICK))


@pytest.mark.parametrize(
    ("forgotten", "said", "drift"),
    [((), "1.3", 1.0), (("3",), "1.25", 1.25), (("3",), None, None), (("3",), "nan", None), (("3",), "-1", None), (("3",), "much", None)],
)
def test_how_far_earlier_erasures_went_is_read_from_the_version_or_not_known(workdir, forgotten, said, drift):
    """The lie: 'the first erasure', of a champion that lost its history."""
    tracking, version = register(workdir, forgotten, **({} if said is None else {DRIFT_TAG: said}))
    tracking.set_alias("digits", CHAMPION, version)
    assert ensure_champion(workdir, RunConfig.model_validate(QUICK)).drift == drift
