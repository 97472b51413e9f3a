"""The lies: 'the canary is ready', of the generation before; 'it was rolled back', with the canary still in the list."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from erasediff.cluster.api import SERVICE, Kind, Object
from erasediff.cluster.deadline import Deadline
from erasediff.errors import BadInput, EraseDiffError, RolledBack
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate
from erasediff.rollout.kserve import failure_of, inference_service, owned, predictor, predictor_name, service_name, storage_uri
from erasediff.rollout.kserve_knative import revision_with
from erasediff.rollout.kserve_standard import SHARED_LABEL, StandardBackend, canary_status, serves_alone
from erasediff.rollout.objects import PORT
from erasediff.rollout.run import RollOut
from erasediff.rollout.store import Exported
from tests.exported import describe
from tests.rollout.fake_server import answering
from tests.rollout.recorded_kserve import FIRST, SECOND, RecordedKServe, recorded, selector_of

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


# What each line of the recording shows: the share of a canary that is ready, and the predictor that serves alone.
READY_CANARY = {4: 0, 5: 0, 9: 0, 10: 0, 11: 10, 12: 10}
ALONE = {1: FIRST, 6: FIRST, **dict.fromkeys(range(13, 19), SECOND)}
STALE = {2: FIRST, 7: FIRST}  # a canary was asked for and the controller has not seen it: who asks has to ask for the canary


@pytest.mark.parametrize("line", range(1, 19))
def test_what_kserve_was_recorded_to_say_is_understood(line: int) -> None:
    present = recorded()[line - 1]
    for percent in (0, 10):
        status = canary_status(present, SECOND, percent)
        assert bool(status and status["ready"]) is (READY_CANARY.get(line) == percent)
        assert canary_status(present, FIRST, percent) is None
    for name in (FIRST, SECOND):
        assert serves_alone(present, name) is ((ALONE | STALE).get(line) == name)


def test_control_the_generation_of_the_status_says_nothing() -> None:
    """In Standard mode it is the Deployment's: who waited for it waited for ever."""
    behind = [line["metadata"]["generation"] > line["status"]["observedGeneration"] for line in recorded()]
    assert all(behind[1:])
    assert not behind[0]


def test_the_service_of_a_predictor_is_named_as_kserve_names_it() -> None:
    for line in (recorded()[0], recorded()[-1]):
        host = line["status"]["address"]["url"].removeprefix("http://").partition(".")[0]
        assert host == service_name("erasediff", line["spec"]["predictor"]["name"])
    assert service_name("erasediff", None) == "erasediff-predictor"


@pytest.fixture
def models(tmp_path: Path) -> tuple[Candidate, Candidate]:
    return candidate_in(tmp_path / "1", 1), candidate_in(tmp_path / "2", 2)


def candidate_in(folder: Path, epoch: int) -> Candidate:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph %d" % epoch)
    (folder / "solvers.npz").write_bytes(b"tables")
    describe(folder, epoch=epoch)
    exported = Exported.read(folder)
    return Candidate(f"s3://models/{exported.place}", exported.model)


def own_address(number: int) -> str:
    """An address of this machine that no other worker of the tests uses: pods have one each, and all of them the same port."""
    process = os.getpid()
    return f"127.{1 + (process >> 8) % 254}.{process % 256}.{number}"


def test_a_first_version_a_roll_back_and_a_promotion_go_through_what_kserve_was_recorded_to_say(models: tuple[Candidate, Candidate]) -> None:
    first, second = models
    one, two = predictor_name(first.uri), predictor_name(second.uri)
    cluster = RecordedKServe(one, two, {one: [own_address(1)], two: [own_address(2)]})
    settings = S3.model_copy(update={"replicas": 1, "share_seconds": 0, "timeout_seconds": 20, "smoke_seconds": 1, "drain_seconds": 0})

    def roll_out(candidate: Candidate) -> str:
        return RollOut(cluster, settings, "one", lambda model, rules: None).run(candidate)  # type: ignore[arg-type]

    with answering(first, own_address(1), PORT):
        roll_out(first)
        with answering(first, own_address(2), PORT), pytest.raises(RolledBack, match="the previous version goes on serving"):
            roll_out(second)  # the canary's pods serve another graph
        with answering(second, own_address(2), PORT):
            revision = roll_out(second)
    assert revision == "inferenceservice/erasediff generation 6"
    assert len(cluster.applied) == 6
    # Our Service: made for the first version, not touched by the roll-back, moved before generation 6 drops the first predictor.
    assert cluster.moves == [(1, selector_of(one)), (5, {SHARED_LABEL: "erasediff"}), (5, selector_of(two))]


def test_one_pod_that_serves_another_graph_than_the_rest_stops_the_promotion(models: tuple[Candidate, Candidate]) -> None:
    """Every pod is asked, not the one alone that the smoke test asked, and clients stay where they are."""
    first, second = models
    one, two = predictor_name(first.uri), predictor_name(second.uri)
    cluster = RecordedKServe(one, two, {one: [own_address(1), own_address(2)], two: [own_address(3), own_address(4)]})
    settings = S3.model_copy(update={"replicas": 2, "canary_percent": 0, "share_seconds": 0, "timeout_seconds": 20, "smoke_seconds": 1})
    with answering(first, own_address(1), PORT), answering(first, own_address(2), PORT):
        RollOut(cluster, settings, "one", lambda model, rules: None).run(first)  # type: ignore[arg-type]
        stopped = pytest.raises(RolledBack, match=r"serves onnx_sha256 .* was published.*the previous version goes on serving")
        with answering(second, own_address(3), PORT), answering(first, own_address(4), PORT), stopped:
            RollOut(cluster, settings, "one", lambda model, rules: None).run(second)  # type: ignore[arg-type]
    assert cluster.moves == [(1, selector_of(one))]


def test_a_canary_that_a_killed_roll_out_has_left_before_our_service_is_taken_back_first(models: tuple[Candidate, Candidate]) -> None:
    """It was killed between the move of our Service and the promotion: the next one begins anew, and the clients go back before it does."""
    first, second = models
    one, two = predictor_name(first.uri), predictor_name(second.uri)
    cluster = RecordedKServe(one, two, {one: [own_address(1)], two: [own_address(2)]})
    settings = S3.model_copy(update={"replicas": 1, "timeout_seconds": 20, "drain_seconds": 0})

    def begin(candidate: Candidate) -> StandardBackend:
        backend = StandardBackend(cluster, settings)  # type: ignore[arg-type]
        backend.look()
        backend.bring_up(candidate, Deadline(20))
        return backend

    with answering(first, own_address(1), PORT):
        begin(first).promote(Deadline(20))
        begin(second).roll_back(Deadline(20))
        begin(second)
    service = cluster.get(SERVICE, "erasediff-stable")
    assert service is not None
    cluster.replace(SERVICE, {**service, "spec": {**service["spec"], "selector": selector_of(two)}})
    backend = begin(second)
    assert cluster.moves[-2:] == [(4, selector_of(two)), (4, selector_of(one))]
    assert backend.address() == f"http://{own_address(2)}:{PORT}"


class StuckKServe(RecordedKServe):
    """One whose first word of an object stays, with pods of the canary and events as the kubelet and a ReplicaSet's controller have them."""

    def __init__(self, first: str, second: str, pods: list[Object], events: list[Object]) -> None:
        super().__init__(first, second, {first: [own_address(1)]})
        self._canary, self._pods, self._events = second, pods, events

    def apply(self, kind: Kind, body: Object) -> Object:
        applied = super().apply(kind, body)
        del self._statuses[1:]
        return applied

    def list(self, kind: Kind, labels: dict[str, str]) -> list[Object]:
        return self._pods if labels == selector_of(self._canary) else super().list(kind, labels)

    def events(self) -> list[Object]:
        return self._events


def warning(reason: str, message: str, about: str) -> Object:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": now, "involvedObject": {"name": about}, "metadata": {}}


@pytest.mark.parametrize("cause", ["mount", "quota", "none"])
def test_a_canary_that_does_not_come_up_in_time_is_told_by_what_the_cluster_says_of_its_pods(models: tuple[Candidate, Candidate], cause: str) -> None:
    """KServe says of it that it is not ready, and no more. Control: where the cluster says nothing either, the sentence is without a reason."""
    first, second = models
    one, two = predictor_name(first.uri), predictor_name(second.uri)
    name = f"{service_name('erasediff', two)}-6f9c"
    creating = {"metadata": {"name": f"{name}-x"}, "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}}
    pods, events, sentence = {
        "mount": ([creating], [warning("FailedMount", "no such claim", f"{name}-x")], f": pod {name}-x waits: FailedMount, no such claim$"),
        "quota": ([], [warning("FailedCreate", "exceeded quota: small", name)], ": exceeded quota: small$"),
        "none": ([], [warning("FailedCreate", "of another", f"{service_name('erasediff', one)}-6f9c")], "$"),
    }[cause]
    settings = S3.model_copy(update={"replicas": 1, "drain_seconds": 0})
    backend = StandardBackend(StuckKServe(one, two, pods, events), settings)  # type: ignore[arg-type]
    with answering(first, own_address(1), PORT):
        backend.look()
        backend.bring_up(first, Deadline(20))
        backend.promote(Deadline(20))
    backend.look()
    with pytest.raises(EraseDiffError, match=rf"the canary {two} did not become ready within 0 s{sentence}"):
        backend.bring_up(second, Deadline(0.2))


def test_a_service_of_somebody_else_with_our_name_is_left_alone(models: tuple[Candidate, Candidate]) -> None:
    cluster = RecordedKServe(FIRST, SECOND, {})
    cluster.create(SERVICE, {"metadata": {"name": "erasediff-stable", "namespace": "erasediff"}, "spec": {"selector": {"app": "web"}}})
    with pytest.raises(BadInput, match="Service erasediff/erasediff-stable was not made by a roll-out"):
        StandardBackend(cluster, S3).look()  # type: ignore[arg-type]


def knative(created: str, ready: str, percent: int) -> dict:
    traffic = [{"latestRevision": True, "percent": percent, "revisionName": created}, {"percent": 100 - percent, "revisionName": "older"}]
    predictor_status = {"latestCreatedRevision": created, "latestReadyRevision": ready, "traffic": traffic}
    return {"status": {"components": {"predictor": predictor_status}}}


def test_a_revision_counts_when_it_is_ready_and_has_its_share() -> None:
    assert revision_with(knative("r2", "r2", 10), 10) == "r2"
    assert revision_with(knative("r2", "r1", 10), 10) is None
    assert revision_with(knative("r2", "r2", 0), 10) is None
    assert revision_with({}, 0) is None


def test_a_model_that_kserve_gave_up_is_quoted() -> None:
    assert failure_of({"transitionStatus": "InProgress"}) is None
    assert failure_of({}) is None
    assert failure_of({"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no such object.\n"}}) == "no such object"
    assert failure_of({"transitionStatus": "InvalidSpec"}) == "InvalidSpec"
