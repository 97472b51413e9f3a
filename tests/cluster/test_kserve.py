"""The lies: 'KServe has the new version', of the generation before; 'nothing was overwritten'. A real API server with KServe's CRD, and a
stand-in that plays its controller: what KServe itself does with these objects is not shown here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from erasediff.cluster.api import INFERENCE_SERVICE, MANAGER, Object
from erasediff.errors import BadInput, RolledBack
from erasediff.records.settings import RollOutSettings
from erasediff.rollout import kserve as kserve_objects
from erasediff.rollout import kserve_knative, kserve_standard
from erasediff.rollout.backend import Candidate
from erasediff.rollout.kserve import predictor_name, storage_uri
from erasediff.rollout.store import Exported
from tests.cluster.conftest import Place
from tests.cluster.kserve_place import KServe
from tests.cluster.kserve_stand_in import StandInController
from tests.cluster.test_deployment import assert_one_sentence


@pytest.fixture(params=["Standard", "Knative"])
def kserve(request: pytest.FixtureRequest, crd: None, place: Place, serve_image: str) -> Iterator[KServe]:
    with StandInController(place.cluster, "erasediff", serve_image) as controller:
        yield KServe(place, controller, request.param)


@pytest.fixture
def candidates(kserve: KServe, versions: tuple[Exported, Exported]) -> tuple[Candidate, Candidate]:
    return kserve.publish(versions[0]), kserve.publish(versions[1])


def test_from_version_1_to_2_by_a_canary(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    first, second = candidates
    kserve.roll_out(first)
    revision = kserve.roll_out(second)
    spec, seen = kserve.spec(), kserve.controller.seen
    assert spec["predictor"]["model"]["storageUri"] == storage_uri(kserve.settings, second.uri)
    assert "canary" not in spec
    assert "canaryTrafficPercent" not in spec["predictor"]
    assert kserve.standing() == second
    assert revision.startswith("inferenceservice/erasediff generation ")
    if kserve.settings.mode == "Standard":
        assert [[entry["trafficPercent"] for entry in s.get("canary", ())] for s in seen] == [[], [0], [10], []]
        assert {s["predictor"]["model"]["storageUri"] for s in seen[:3]} == {storage_uri(kserve.settings, first.uri)}
        assert spec["predictor"]["name"] == predictor_name(second.uri) == seen[1]["canary"][0]["predictor"]["name"]
    else:
        assert [s["predictor"].get("canaryTrafficPercent") for s in seen] == [None, 0, 10, None]


def test_a_kserve_of_another_version_is_told_and_the_previous_model_stays(
    kserve: KServe, candidates: tuple[Candidate, Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has never heard of a field of the canary."""
    kserve.roll_out(candidates[0])
    before, made = kserve.spec(), kserve_objects.predictor

    def with_another_field(settings: RollOutSettings, candidate: Candidate) -> Object:
        found = made(settings, candidate)
        return {**found, "unheardOf": {"a": 1}} if candidate == candidates[1] else found

    for module in (kserve_objects, kserve_standard, kserve_knative):
        if hasattr(module, "predictor"):
            monkeypatch.setattr(module, "predictor", with_another_field)
    with pytest.raises(RolledBack, match=r"dropped spec\..*unheardOf of InferenceService .* is of another version") as refused:
        kserve.roll_out(candidates[1])
    assert_one_sentence(refused.value)
    assert kserve.spec() == before


def test_a_canary_that_does_not_load_is_dropped(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    first, second = candidates
    kserve.roll_out(first)
    before = kserve.spec()
    kserve.controller.failing.add(storage_uri(kserve.settings, second.uri))
    with pytest.raises(
        RolledBack, match=r"(the model is not the measured one|ErrImageNeverPull.*)\); the previous version goes on serving"
    ) as refused:
        kserve.roll_out(second)
    assert_one_sentence(refused.value)
    assert kserve.spec() == before
    assert kserve.standing() == first


def test_a_canary_that_serves_another_graph_is_dropped(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    first, second = candidates
    kserve.roll_out(first)
    before = kserve.spec()
    with pytest.raises(RolledBack, match=r"serves onnx_sha256 .* was published"):
        kserve.roll_out(Candidate(second.uri, first.model), served=second)
    assert kserve.spec() == before


def test_a_field_that_somebody_else_owns_is_not_taken(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    """Server-side apply: another manager has set the storage URI itself."""
    first, second = candidates
    kserve.roll_out(first)
    theirs = f"{storage_uri(kserve.settings, first.uri)}/"  # the same folder, so that its pods start
    resource = kserve.cluster._resource(INFERENCE_SERVICE)
    predictor = {"model": {"modelFormat": {"name": "erasediff"}, "storageUri": theirs}}
    body = {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": "InferenceService",
        "metadata": {"name": "erasediff"},
        "spec": {"predictor": predictor},
    }
    resource.server_side_apply(body=body, name="erasediff", namespace=kserve.cluster.namespace, field_manager="somebody", force_conflicts=True)
    with pytest.raises(RolledBack, match=r"changed by another client.*somebody") as refused:
        kserve.roll_out(second)
    assert_one_sentence(refused.value)
    assert kserve.spec()["predictor"]["model"]["storageUri"] == theirs
    assert "canary" not in kserve.spec()


def test_where_nothing_served_nothing_is_left(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    kserve.controller.failing.add(storage_uri(kserve.settings, candidates[0].uri))
    with pytest.raises(RolledBack):
        kserve.roll_out(candidates[0])
    assert kserve.standing() is None


def test_the_same_version_again_is_no_second_predictor(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    kserve.roll_out(candidates[0])
    before = kserve.spec()
    kserve.roll_out(candidates[0])
    assert kserve.spec() == before


def test_another_mode_than_is_there_is_refused(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    """Each mode ignores the other's fields without a word."""
    kserve.roll_out(candidates[0])
    other = "Knative" if kserve.settings.mode == "Standard" else "Standard"
    with pytest.raises(BadInput, match="is in mode"):
        kserve.roll_out(candidates[1], mode=other)


def test_what_is_claimed_is_claimed_by_one_manager(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    kserve.roll_out(candidates[0])
    found = kserve.cluster.get(INFERENCE_SERVICE, "erasediff")
    assert found is not None
    managers = {entry["manager"]: entry["operation"] for entry in found["metadata"]["managedFields"]}
    assert managers[MANAGER] == "Apply"
