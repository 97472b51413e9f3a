"""The lies: 'the canary is ready', of the generation before; 'it was rolled back', with the canary still in the list."""

from __future__ import annotations

import pytest

from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate
from erasediff.rollout.kserve import canary_status, failure_of, inference_service, is_ready, owned, predictor, predictor_name, storage_uri

S3 = RollOutSettings(backend="kserve", publish_to="s3://models")


def test_a_claim_and_a_bucket_have_addresses_that_kserve_knows() -> None:
    claim = S3.model_copy(update={"publish_to": "/workdir/published", "claim": "erasediff-workdir"})
    assert storage_uri(claim, "/workdir/published/a/b") == "pvc://erasediff-workdir/published/a/b"
    assert storage_uri(S3, "s3://models/a/b") == "s3://models/a/b"


def test_two_models_never_share_a_predictors_name() -> None:
    assert predictor_name("s3://models/a") != predictor_name("s3://models/b")
    assert predictor_name("s3://models/a")[0].isalpha()


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_only_standard_mode_names_its_predictors(candidate: Candidate, mode: str) -> None:
    """A name that Knative mode ignores would be one that a later reader believes."""
    made = predictor(S3.model_copy(update={"mode": mode}), candidate)
    assert ("name" in made) is (mode == "Standard")


def test_what_is_put_back_is_what_was_claimed_and_no_default_of_others(candidate: Candidate) -> None:
    stable = predictor(S3, candidate)
    present = inference_service(S3, stable, candidate, canary=[{"trafficPercent": 10, "predictor": {"name": "x"}}])
    present["spec"]["predictor"] = {**stable, "model": {**stable["model"], "resources": {}, "name": ""}, "maxReplicas": 3}
    assert owned(present) == stable
    assert owned({**present, "metadata": {}}) is None


def service(generation: int = 2, observed: int = 2, **status: object) -> dict:
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": observed, "conditions": ready, **status}}


def test_ready_counts_for_this_generation_only() -> None:
    assert is_ready(service())
    assert not is_ready(service(observed=1))
    assert not is_ready(service(conditions=[{"type": "Ready", "status": "False"}]))
    assert not is_ready({"metadata": {"generation": 1}})


def test_a_canarys_status_counts_for_this_generation_only() -> None:
    statuses = [{"name": "a", "ready": True}]
    assert canary_status(service(canaryStatuses=statuses), "a") == statuses[0]
    assert canary_status(service(canaryStatuses=statuses), "b") is None
    assert canary_status(service(canaryStatuses=statuses, observed=1), "a") is None


def test_a_model_that_kserve_gave_up_is_quoted() -> None:
    assert failure_of({"transitionStatus": "InProgress"}) is None
    assert failure_of({}) is None
    assert failure_of({"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no such object.\n"}}) == "no such object"
    assert failure_of({"transitionStatus": "InvalidSpec"}) == "InvalidSpec"
