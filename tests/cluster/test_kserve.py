"""The lies: 'KServe has the new version', of the generation before; 'nothing was overwritten'. A real API server with KServe's CRD, and a
stand-in that plays its controller: what KServe itself does with these objects is not shown here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from erasediff.cluster.api import INFERENCE_SERVICE, MANAGER, Cluster, Kind
from erasediff.cluster.deadline import Deadline
from erasediff.errors import BadInput, RolledBack
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate, serving_candidate
from erasediff.rollout.kserve import predictor_name, storage_uri
from erasediff.rollout.run import RollOut
from erasediff.rollout.store import Exported
from erasediff.serve.admission import check_servable
from tests.cluster.conftest import left_out
from tests.cluster.crds import without_empty_defaults
from tests.cluster.kserve_stand_in import StandInController
from tests.cluster.test_deployment import assert_one_sentence
from tests.exported import describe
from tests.kubeflow.crd import FOLDER
from tests.rollout.fake_server import answering

CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
FILE = FOLDER / "serving.kserve.io_inferenceservices.yaml"
NAME = "inferenceservices.serving.kserve.io"


@pytest.fixture(scope="module")
def crd(kubeconfig: Path) -> Iterator[None]:
    """KServe's definition, where the cluster has none of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        with Cluster.connected("default") as cluster:
            if cluster.get(CRD, NAME) is not None:
                pytest.skip("the cluster has KServe: a stand-in for its controller would disturb it.")
            if not FILE.is_file():
                left_out(f"{FILE.name} of KServe is not here: set ERASEDIFF_CRDS to a folder that has it.")
            cluster.create(CRD, without_empty_defaults(yaml.load(FILE.read_text(), yaml.CSafeLoader)))

            def established(present: Any) -> bool | None:
                conditions = (present or {}).get("status", {}).get("conditions") or ()
                return True if any(c["type"] == "Established" and c["status"] == "True" for c in conditions) else None

            try:
                cluster.wait(CRD, NAME, established, Deadline(60), "the CRD was not established")
                yield
            finally:
                cluster.delete(CRD, NAME)


class KServe:
    """A namespace, the stand-in, and settings of a mode."""

    def __init__(self, cluster: Cluster, controller: StandInController, mode: str) -> None:
        self.cluster, self.controller = cluster, controller
        self.settings = RollOutSettings(
            backend="kserve",
            namespace=cluster.namespace,
            publish_to="s3://models",
            mode=mode,
            replicas=1,
            share_seconds=0,
            timeout_seconds=30,
            smoke_seconds=5,
        )

    def roll_out(self, candidate: Candidate, **settings: Any) -> str:
        with answering(candidate) as server:
            changed = self.settings.model_copy(update=settings)
            return RollOut(self.cluster, changed, "one", check_servable, lambda: server.address).run(candidate)

    def spec(self) -> dict[str, Any]:
        found = self.cluster.get(INFERENCE_SERVICE, "erasediff")
        assert found is not None
        return dict(found["spec"])

    def standing(self) -> Candidate | None:
        found = self.cluster.get(INFERENCE_SERVICE, "erasediff")
        return None if found is None else serving_candidate(found["metadata"]["annotations"])


@pytest.fixture(params=["Standard", "Knative"])
def kserve(request: pytest.FixtureRequest, crd: None, namespace: Cluster) -> Iterator[KServe]:
    with StandInController(namespace, "erasediff") as controller:
        yield KServe(namespace, controller, request.param)


@pytest.fixture
def candidates(tmp_path: Path) -> tuple[Candidate, Candidate]:
    """Two manifests; no graph is run here."""
    found = []
    for epoch in (1, 2):
        folder = tmp_path / str(epoch)
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"graph %d" % epoch)
        (folder / "solvers.npz").write_bytes(b"tables")
        describe(folder, epoch=epoch)
        exported = Exported.read(folder)
        found.append(Candidate(f"s3://models/{exported.place}", exported.model))
    return found[0], found[1]


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
        assert {s["predictor"]["model"]["storageUri"] for s in seen[:3]} == {first.uri}
        assert spec["predictor"]["name"] == predictor_name(second.uri) == seen[1]["canary"][0]["predictor"]["name"]
    else:
        assert [s["predictor"].get("canaryTrafficPercent") for s in seen] == [None, 0, 10, None]


def test_a_canary_that_does_not_load_is_dropped(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    first, second = candidates
    kserve.roll_out(first)
    before = kserve.spec()
    kserve.controller.failing.add(second.uri)
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
    with answering(first) as server, pytest.raises(RolledBack, match=r"serves onnx_sha256 .* was published"):
        RollOut(kserve.cluster, kserve.settings, "one", check_servable, lambda: server.address).run(second)
    assert kserve.spec() == before


def test_a_field_that_somebody_else_owns_is_not_taken(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    """Server-side apply: another manager has set the storage URI itself."""
    first, second = candidates
    kserve.roll_out(first)
    resource = kserve.cluster._resource(INFERENCE_SERVICE)
    predictor = {"model": {"modelFormat": {"name": "erasediff"}, "storageUri": "s3://somebody/else"}}
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
    assert kserve.spec()["predictor"]["model"]["storageUri"] == "s3://somebody/else"
    assert "canary" not in kserve.spec()


def test_where_nothing_served_nothing_is_left(kserve: KServe, candidates: tuple[Candidate, Candidate]) -> None:
    kserve.controller.failing.add(candidates[0].uri)
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
