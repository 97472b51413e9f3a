"""The lies: 'no request was lost', 'it was rolled back', 'the previous version goes on serving'. Real pods of a real cluster."""

from __future__ import annotations

import os
import re
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from erasediff.cluster.api import CONFIG_MAP, DEPLOYMENT, LEASE, POD, SERVICE, Cluster, Kind, Object
from erasediff.cluster.deadline import Deadline
from erasediff.errors import BadInput, RolledBack, Unreachable
from erasediff.rollout.backend import Candidate
from erasediff.rollout.deployment import DeploymentBackend
from erasediff.rollout.lease import Lease, held_by
from erasediff.rollout.objects import ISSUER_CONFIG_MAP, ISSUER_KEY, selector
from erasediff.rollout.run import RollOut
from erasediff.rollout.store import Exported
from erasediff.serve.admission import check_servable
from tests.cluster.client import Client
from tests.cluster.conftest import CRD, INFERENCE_SERVICES_NAME, Place, claim_over


def essence(deployment: Object) -> Object:
    """What a roll-back has to leave as it was."""
    return {"spec": deployment["spec"], "ours": {k: v for k, v in deployment["metadata"]["annotations"].items() if k.startswith("erasediff.io/")}}


def assert_one_sentence(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert str(error).endswith(".")
    assert len(str(error)) < 1500


def assert_nothing_is_left_of_the_canary(place: Place) -> None:
    assert place.cluster.get(DEPLOYMENT, "erasediff-canary") is None
    assert place.cluster.get(SERVICE, "erasediff-canary") is None
    pods = place.cluster.list(POD, selector(place.settings, "canary"))
    assert all(pod["metadata"].get("deletionTimestamp") for pod in pods)
    service = place.cluster.get(SERVICE, "erasediff")
    assert service is None or service["spec"]["selector"] == selector(place.settings, "stable")
    lease = place.cluster.get(LEASE, "erasediff-roll-out")
    assert lease is None or not lease["spec"].get("holderIdentity")


@pytest.fixture
def serving(place: Place, versions: tuple[Exported, Exported]) -> Place:
    """Version 1, rolled out."""
    place.roll_out(place.publish(versions[0]))
    return place


def test_from_version_1_to_2_no_request_is_lost(place: Place, versions: tuple[Exported, Exported]) -> None:
    first, second = (place.publish(version) for version in versions)
    place.roll_out(first, replicas=2)
    assert place.served() == {first.model.onnx.sha256}
    assert place.rules() == "minimum_epoch: 1\n"
    shared: list[set[str]] = []

    def address() -> str:
        shared.append(place.served())
        return place.address()

    with Client(place.cluster) as client:
        revision = place.roll_out(second, address)
        assert place.served() == {second.model.onnx.sha256}
    assert shared == [{first.model.onnx.sha256}], "before it was tested, the canary got no request"
    assert set(client.answers) == {"200"}
    assert client.answers["200"] > 100
    assert place.rules() == "minimum_epoch: 2\n"
    assert place.stable()["spec"]["replicas"] == 2
    assert revision == f"deployment/erasediff generation {place.stable()['metadata']['generation']}"
    assert_nothing_is_left_of_the_canary(place)


def test_control_the_client_sees_requests_that_are_lost(serving: Place) -> None:
    """Pods that are deleted without a word of warning."""
    with Client(serving.cluster) as client:
        for pod in serving.cluster.list(POD, selector(serving.settings)):
            resource = serving.cluster._resource(POD)
            resource.delete(name=pod["metadata"]["name"], namespace=serving.cluster.namespace, body={"gracePeriodSeconds": 0})
        end = time.monotonic() + 30
        while not set(client.answers) - {"200"} and time.monotonic() < end:
            time.sleep(0.1)
    assert set(client.answers) - {"200"}


def damaged(candidate: Candidate) -> None:
    path = Path(candidate.uri) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def test_a_canary_that_refuses_its_model_is_quoted_and_taken_away(serving: Place, versions: tuple[Exported, Exported]) -> None:
    before, second = essence(serving.stable()), serving.publish(versions[1])
    damaged(second)
    with Client(serving.cluster) as client, pytest.raises(RolledBack) as refused:
        serving.roll_out(second)
    assert "model.onnx is not the file that was measured" in str(refused.value)
    assert "the previous version goes on serving" in str(refused.value)
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before
    assert serving.served() == {versions[0].model.onnx.sha256}
    assert serving.rules() == "minimum_epoch: 1\n"
    assert set(client.answers) == {"200"}
    assert_nothing_is_left_of_the_canary(serving)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"image": "erasediff-no-such-image:1"}, "ErrImageNeverPull"),
        ({"image": "Not An Image"}, "InvalidImageName"),
        ({"cpu": "1000", "cpu_limit": "1000", "timeout_seconds": 30}, "cannot be scheduled"),
        ({"service_account": "nobody", "timeout_seconds": 30}, "ProgressDeadlineExceeded|did not become ready"),
    ],
    ids=["an image that is not there", "no image's name", "no node is large enough", "no pod is let in"],
)
def test_a_canary_that_never_becomes_ready_is_taken_away(
    serving: Place, versions: tuple[Exported, Exported], settings: dict[str, Any], sentence: str
) -> None:
    before = essence(serving.stable())
    with pytest.raises(RolledBack, match=sentence) as refused:
        serving.roll_out(serving.publish(versions[1]), **settings)
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before
    assert serving.served() == {versions[0].model.onnx.sha256}
    assert_nothing_is_left_of_the_canary(serving)


def test_a_canary_that_serves_another_graph_than_was_published_is_taken_away(serving: Place, versions: tuple[Exported, Exported]) -> None:
    before = essence(serving.stable())
    wrong = Candidate(serving.publish(versions[0]).uri, versions[1].model)
    with pytest.raises(RolledBack, match=r"the canary serves onnx_sha256 .* was published") as refused:
        serving.roll_out(wrong)
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before
    assert_nothing_is_left_of_the_canary(serving)


def test_what_somebody_else_changed_meanwhile_is_left_as_they_left_it(serving: Place, versions: tuple[Exported, Exported]) -> None:
    def address() -> str:
        def edit(present: Object) -> Object:
            present["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "SOMEBODY", "value": "was here"})
            return present

        serving.cluster.change(DEPLOYMENT, "erasediff", edit)
        return serving.address()

    with pytest.raises(RolledBack, match="was changed by another process") as refused:
        serving.roll_out(serving.publish(versions[1]), address)
    assert_one_sentence(refused.value)
    assert {"name": "SOMEBODY", "value": "was here"} in serving.stable()["spec"]["template"]["spec"]["containers"][0]["env"]
    assert_nothing_is_left_of_the_canary(serving)


def test_an_autoscaler_is_nobody_else(serving: Place, versions: tuple[Exported, Exported]) -> None:
    """Control: another number of pods is no conflict, and it is kept."""

    def address() -> str:
        serving.cluster.change(DEPLOYMENT, "erasediff", lambda present: {**present, "spec": {**present["spec"], "replicas": 2}})
        return serving.address()

    serving.roll_out(serving.publish(versions[1]), address)
    assert serving.stable()["spec"]["replicas"] == 2


def test_of_two_roll_outs_at_once_one_is_refused(serving: Place, versions: tuple[Exported, Exported]) -> None:
    second, refused = serving.publish(versions[1]), []

    def address() -> str:
        with pytest.raises(BadInput, match=r"another roll-out of .*/erasediff is under way, by one/") as error:
            RollOut(serving.cluster, serving.settings, "two", check_servable, serving.address).run(second)
        refused.append(error.value)
        return serving.address()

    serving.roll_out(second, address)
    assert_one_sentence(refused[0])
    assert serving.served() == {second.model.onnx.sha256}, "the first one was not disturbed"


def test_a_lease_that_was_taken_away_stops_a_roll_out(serving: Place, versions: tuple[Exported, Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is promoted, nor touched any more: it is the other one's turn."""
    monkeypatch.setattr("erasediff.rollout.lease.SECONDS", 3)
    before = essence(serving.stable())

    def address() -> str:
        serving.cluster.change(LEASE, "erasediff-roll-out", lambda present: {**present, "spec": {**present["spec"], "holderIdentity": "another"}})
        time.sleep(2)  # the time in which it is renewed
        return serving.address()

    with pytest.raises(RolledBack, match=r"another process took it.*the roll-back failed too") as refused:
        serving.roll_out(serving.publish(versions[1]), address)
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before


def test_credentials_that_expire_end_in_one_sentence_and_the_next_roll_out_cleans_up(serving: Place, versions: tuple[Exported, Exported]) -> None:
    before, second = essence(serving.stable()), serving.publish(versions[1])
    configuration = serving.cluster._api.configuration
    keys, good, refresh = configuration.api_key, dict(configuration.api_key), configuration.refresh_api_key_hook

    def address() -> str:
        found = serving.address()
        configuration.refresh_api_key_hook = None  # it reads the kubeconfig again
        for name in keys:
            keys[name] = "Bearer expired"
        return found

    with pytest.raises(RolledBack, match=r"refuses the credentials \(401\)") as refused:
        serving.roll_out(second, address)
    keys.update(good)
    configuration.refresh_api_key_hook = refresh
    assert_one_sentence(refused.value)
    assert "Bearer" not in str(refused.value)
    assert essence(serving.stable()) == before
    assert serving.served() == {versions[0].model.onnx.sha256}
    lease = serving.cluster.get(LEASE, "erasediff-roll-out")
    assert lease is not None
    serving.cluster.replace(LEASE, {**lease, "spec": {**lease["spec"], "renewTime": "2020-01-01T00:00:00.000000Z"}})  # as if a minute had gone by
    serving.roll_out(second)
    assert serving.served() == {second.model.onnx.sha256}
    assert_nothing_is_left_of_the_canary(serving)


def test_a_model_that_the_rules_do_not_admit_is_refused_before_anything_is_touched(serving: Place, versions: tuple[Exported, Exported]) -> None:
    serving.roll_out(serving.publish(versions[1]))
    before = essence(serving.stable())
    with pytest.raises(BadInput, match="has erasure epoch 1, below the minimum 2") as refused:
        serving.roll_out(serving.publish(versions[0]))
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before


@pytest.mark.parametrize("data", [None, {"other.pub": ""}])
def test_a_namespace_without_the_issuer_s_key_is_refused_before_anything_is_touched(
    serving: Place, versions: tuple[Exported, Exported], data: dict[str, str] | None
) -> None:
    """Its servers would never be ready. Control: version 1 was rolled out there before."""
    serving.cluster.delete(CONFIG_MAP, ISSUER_CONFIG_MAP)
    if data is not None:
        serving.cluster.create(CONFIG_MAP, {"metadata": {"name": ISSUER_CONFIG_MAP}, "data": data})
    before = essence(serving.stable())
    with pytest.raises(BadInput, match=rf"ConfigMap .*/{ISSUER_CONFIG_MAP} holds no {ISSUER_KEY}") as refused:
        serving.roll_out(serving.publish(versions[1]))
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before


def test_a_version_that_was_revoked_meanwhile_is_not_brought_back(
    serving: Place, versions: tuple[Exported, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one had taken over when the rules could not be raised; the old one may no longer be served."""
    from erasediff.rollout.rules import ClusterRules

    def revoke(self: ClusterRules, epoch: int) -> None:
        config_map = serving.cluster.get(Kind("v1", "ConfigMap"), "erasediff-serving")
        assert config_map is not None
        data = {"rules.yaml": f"revoked: [{versions[0].model.onnx.sha256}]\n"}
        serving.cluster.replace(Kind("v1", "ConfigMap"), {**config_map, "data": data})
        raise Unreachable("the rules could not be raised.")

    monkeypatch.setattr(ClusterRules, "raise_minimum", revoke)
    with pytest.raises(RolledBack, match=r"the previous version is not restored, since the model .* has been revoked") as refused:
        serving.roll_out(serving.publish(versions[1]))
    assert_one_sentence(refused.value)
    assert serving.served() == {versions[1].model.onnx.sha256}
    assert_nothing_is_left_of_the_canary(serving)


def test_rules_that_cannot_be_raised_bring_the_old_version_back(
    serving: Place, versions: tuple[Exported, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    from erasediff.rollout.rules import ClusterRules

    def fail(self: ClusterRules, epoch: int) -> None:
        raise Unreachable("the rules could not be raised.")

    before = essence(serving.stable())
    monkeypatch.setattr(ClusterRules, "raise_minimum", fail)
    with Client(serving.cluster) as client, pytest.raises(RolledBack, match=r"the rules could not be raised\); the previous version goes on serving"):
        serving.roll_out(serving.publish(versions[1]))
    assert essence(serving.stable()) == before
    assert serving.served() == {versions[0].model.onnx.sha256}
    assert set(client.answers) == {"200"}


def test_where_nothing_served_nothing_is_left(place: Place, versions: tuple[Exported, Exported]) -> None:
    first = place.publish(versions[0])
    damaged(first)
    with pytest.raises(RolledBack):
        place.roll_out(first)
    assert place.cluster.get(DEPLOYMENT, "erasediff") is None
    assert place.cluster.get(SERVICE, "erasediff") is None
    assert_nothing_is_left_of_the_canary(place)


def test_pods_that_a_quota_keeps_out_end_the_roll_out_with_the_quotas_words(serving: Place, versions: tuple[Exported, Exported]) -> None:
    before, quota = essence(serving.stable()), Kind("v1", "ResourceQuota")
    serving.cluster.create(quota, {"metadata": {"name": "none-left"}, "spec": {"hard": {"pods": "1"}}})
    serving.cluster.wait(quota, "none-left", lambda present: (present or {}).get("status", {}).get("used"), Deadline(30), "the quota was not counted")
    with pytest.raises(RolledBack, match=r"the cluster refuses its pods \(pods .* exceeded quota: none-left, ") as refused:
        serving.roll_out(serving.publish(versions[1]), timeout_seconds=30)
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before
    assert_nothing_is_left_of_the_canary(serving)


def test_a_volume_that_cannot_be_mounted_is_told_in_the_kubelets_words(
    namespace: Cluster, place: Place, versions: tuple[Exported, Exported], tmp_path: Path
) -> None:
    """The pod's status says "ContainerCreating" and no more."""
    first = place.publish(versions[0])
    volume = f"{namespace.namespace}-gone"
    with (
        claim_over(namespace, "gone", tmp_path / "gone", source="local", volume=volume),
        pytest.raises(RolledBack, match=r"waits: FailedMount, .*path .*/gone. does not exist") as refused,
    ):
        place.roll_out(first, claim="gone", timeout_seconds=40)
    assert_one_sentence(refused.value)
    assert place.cluster.get(DEPLOYMENT, "erasediff") is None
    assert_nothing_is_left_of_the_canary(place)


def test_a_cluster_without_kserve_is_told_and_nothing_is_made(place: Place, versions: tuple[Exported, Exported]) -> None:
    if place.cluster.get(CRD, INFERENCE_SERVICES_NAME) is not None:
        pytest.skip("the cluster has KServe.")
    with pytest.raises(BadInput, match=r"the cluster knows no InferenceService of serving.kserve.io/v1beta1: install its operator") as refused:
        place.roll_out(place.publish(versions[0]), backend="kserve")
    assert_one_sentence(refused.value)
    assert_nothing_is_left_of_the_canary(place)
    assert place.cluster.get(SERVICE, "erasediff-stable") is None


def test_a_deployment_of_somebody_else_is_left_alone(serving: Place, versions: tuple[Exported, Exported]) -> None:
    def edit(present: Object) -> Object:
        present["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
        return present

    serving.cluster.change(DEPLOYMENT, "erasediff", edit)
    with pytest.raises(BadInput, match="was not made by a roll-out"):
        serving.roll_out(serving.publish(versions[1]))


def test_a_process_that_is_told_to_end_goes_back_first(serving: Place, versions: tuple[Exported, Exported]) -> None:
    def address() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return serving.address()

    before, handler = essence(serving.stable()), signal.getsignal(signal.SIGTERM)
    with pytest.raises(RolledBack, match=r"the roll-out was terminated\); the previous version goes on serving") as refused:
        serving.roll_out(serving.publish(versions[1]), address)
    assert_one_sentence(refused.value)
    assert essence(serving.stable()) == before
    assert signal.getsignal(signal.SIGTERM) == handler
    assert_nothing_is_left_of_the_canary(serving)


def test_pods_run_restricted_and_say_why_they_end(serving: Place) -> None:
    pod = serving.cluster.list(POD, selector(serving.settings, "stable"))[0]
    assert pod["status"]["containerStatuses"][0]["ready"]
    assert re.fullmatch(r"[0-9a-z.-]+", pod["metadata"]["name"])
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert not [volume for volume in pod["spec"]["volumes"] if "secret" in volume or "projected" in volume], "no token of the API is in it"


def test_the_holder_of_a_lease_gives_it_back(namespace: Cluster) -> None:
    first, second = Lease(namespace, "a-roll-out", "one", 0), Lease(namespace, "a-roll-out", "two", 60)
    with first.held():
        first.check()
        with pytest.raises(BadInput, match="is under way"), second.held():
            pass
    with second.held():
        second.check()


def test_a_roll_out_that_was_evicted_goes_on_in_another_pod(
    serving: Place, versions: tuple[Exported, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first process is gone and has left a canary and the lease; the next one waits until the lease expires, and begins anew."""
    monkeypatch.setattr("erasediff.rollout.lease.SECONDS", 6)
    second = serving.publish(versions[1])
    evicted = DeploymentBackend(serving.cluster, serving.settings)
    evicted.look()
    evicted.bring_up(second, Deadline(60))
    name = "erasediff-roll-out"
    serving.cluster.change(LEASE, name, lambda present: held_by(name, "one/evicted", datetime.now(UTC), present))
    with pytest.raises(BadInput, match="is under way"):
        RollOut(serving.cluster, serving.settings, "another attempt", check_servable, serving.address).run(second)
    serving.roll_out(second)
    assert serving.served() == {second.model.onnx.sha256}
    assert_nothing_is_left_of_the_canary(serving)
