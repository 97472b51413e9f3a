"""The MLflow adapter against a real MLflow store on SQLite."""

import pytest

from erasediff.errors import BadInput, Unreachable
from erasediff.tracking import CHAMPION, Tracking, _without_credentials


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Tracking(tmp_path_factory.mktemp("tracking"))


@pytest.fixture(scope="module")
def run_id(tracking):
    return tracking.start_run("a run", {})


def test_curves_longer_than_a_batch_arrive_whole_and_in_order(tracking, run_id):
    tracking.log_curves(run_id, {"loss": [k / 7 for k in range(1500)]})
    history = tracking.client.get_metric_history(run_id, "loss")
    assert [m.value for m in sorted(history, key=lambda m: m.step)] == [k / 7 for k in range(1500)]


def test_parameters_may_be_logged_again_by_a_resumed_run(tracking, run_id):
    tracking.log_params(run_id, {"label": 0})
    tracking.log_params(run_id, {"label": 0, "seed": 1})
    assert tracking.client.get_run(run_id).data.params == {"label": "0", "seed": "1"}


def test_a_model_that_is_not_there_is_none_or_a_sentence(tracking):
    assert tracking.alias("nothing", CHAMPION) is None
    with pytest.raises(BadInput, match="models:/nothing@champion"):
        tracking.resolve("models:/nothing@champion")
    with pytest.raises(BadInput):
        tracking.resolve("models:/nothing")


def test_a_model_whose_training_died_before_the_alias_was_set_has_no_champion(tracking, run_id, tmp_path):
    """Else the next run of the same command could not complete."""
    (tmp_path / "weights").write_text("w")
    tracking.register("orphan", tracking.log_artifacts(run_id, tmp_path, "model"), run_id, {"a_sha256": "1"})
    assert tracking.alias("orphan", CHAMPION) is None


def test_registering_the_same_digests_twice_gives_one_version(tracking, run_id, tmp_path):
    (tmp_path / "weights").write_text("w")
    source = tracking.log_artifacts(run_id, tmp_path, "model")
    first = tracking.register("digits", source, run_id, {"a_sha256": "1"})
    assert tracking.register("digits", source, run_id, {"a_sha256": "1"}) == first
    assert tracking.register("digits", source, run_id, {"a_sha256": "2"}) != first  # control: other digests are another version


def test_alias_moves_and_resolves(tracking, run_id, tmp_path):
    (tmp_path / "weights").write_text("w")
    source = tracking.log_artifacts(run_id, tmp_path, "model")
    version = tracking.register("other", source, run_id, {"a_sha256": "1"})
    tracking.set_alias("other", CHAMPION, version)
    assert str(tracking.resolve("models:/other@champion").version) == version
    assert (tracking.download(tracking.resolve(f"models:/other/{version}").source, tmp_path / "got") / "weights").read_text() == "w"


def test_erased_versions_are_found_oldest_first(tracking, run_id, tmp_path):
    (tmp_path / "weights").write_text("w")
    source = tracking.log_artifacts(run_id, tmp_path, "model")
    for k in range(11):
        tracking.register("many", source, run_id, {"a_sha256": str(k)} | ({"erased": "0"} if k >= 8 else {}))
    assert tracking.versions_with_tag("many", "erased") == ["9", "10", "11"]
    assert tracking.versions_with_tag("nothing", "erased") == []


def test_a_closed_port_is_a_sentence_without_the_password(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(Unreachable) as caught:
        Tracking(tmp_path).alias("digits", CHAMPION)
    assert "secret" not in str(caught.value)


def test_credentials_are_taken_out_of_every_address_in_a_text():
    assert _without_credentials("at http://a:b@host/x and s3://c:d@bucket") == "at http://host/x and s3://bucket"
    assert _without_credentials("http://host/a@b") == "http://host/a@b"  # control: an @ in a path is no credential
