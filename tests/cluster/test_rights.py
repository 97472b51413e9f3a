"""The lie: 'this Role is enough', of one that was never tried; and 'nothing more is needed', of one that allows too much."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from erasediff.cluster.api import Cluster, Kind
from erasediff.errors import EraseDiffError
from erasediff.rollout.store import Exported
from tests.cluster.conftest import ROOT, Place
from tests.cluster.test_deployment import assert_one_sentence

ROLE, BINDING, ACCOUNT = (
    Kind("rbac.authorization.k8s.io/v1", "Role"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding"),
    Kind("v1", "ServiceAccount"),
)


def rules_of_the_manifests() -> list[dict[str, list[str]]]:
    """The Role that is applied with the rest."""
    documents = yaml.safe_load_all((ROOT / "manifests/base/roles.yaml").read_text())
    rules: list[dict[str, list[str]]] = next(document for document in documents if document["kind"] == "Role")["rules"]
    return rules


@contextmanager
def as_service_account(cluster: Cluster, name: str) -> Iterator[Cluster]:
    account = cluster.get(ACCOUNT, name)
    assert account is not None
    if account.get("secrets"):
        secret = cluster.get(Kind("v1", "Secret"), account["secrets"][0]["name"])
        assert secret is not None
        token = base64.b64decode(secret["data"]["token"]).decode()
    else:  # newer clusters make no Secret of it
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        token = client.CoreV1Api(cluster._api).create_namespaced_service_account_token(name, cluster.namespace, request).status.token
    settings = client.Configuration()
    settings.host, settings.ssl_ca_cert = cluster._api.configuration.host, cluster._api.configuration.ssl_ca_cert
    settings.api_key = {"authorization": f"Bearer {token}"}
    with client.ApiClient(settings) as api:
        stranger = Cluster(api, cluster.namespace)
        try:
            yield stranger
        finally:
            stranger.close()


def grant(cluster: Cluster, rules: list[dict[str, list[str]]]) -> None:
    cluster.create(ACCOUNT, {"metadata": {"name": "roll-out"}})
    cluster.create(ROLE, {"metadata": {"name": "roll-out"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "roll-out", "namespace": cluster.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "roll-out"}
    cluster.create(BINDING, {"metadata": {"name": "roll-out"}, "subjects": [subject], "roleRef": role})

    def has_token(present: dict | None) -> bool | None:
        return True if present and (present.get("secrets") or not version_makes_secrets(cluster)) else None

    from erasediff.cluster.deadline import Deadline

    cluster.wait(ACCOUNT, "roll-out", has_token, Deadline(30), "the service account got no token")


def version_makes_secrets(cluster: Cluster) -> bool:
    return int("".join(c for c in client.VersionApi(cluster._api).get_code().minor if c.isdigit())) < 24


def test_the_role_of_the_manifests_is_enough(place: Place, versions: tuple[Exported, Exported]) -> None:
    grant(place.cluster, rules_of_the_manifests())
    with as_service_account(place.cluster, "roll-out") as account:
        other = Place(account, place.settings)
        other.roll_out(other.publish(versions[0]))
        other.roll_out(other.publish(versions[1]))
        assert other.served() == {versions[1].model.onnx.sha256}


def test_what_is_not_granted_is_said(place: Place, versions: tuple[Exported, Exported]) -> None:
    """Control: without a Role nothing goes, and nothing is touched."""
    grant(place.cluster, [])
    with as_service_account(place.cluster, "roll-out") as account:
        other = Place(account, place.settings)
        with pytest.raises(EraseDiffError, match=r"no Role allows this account to read Lease .* \(403") as refused:
            other.roll_out(other.publish(versions[0]))
    assert_one_sentence(refused.value)


def test_the_role_of_the_manifests_allows_nothing_beside(place: Place, tmp_path: Path) -> None:
    grant(place.cluster, rules_of_the_manifests())
    with as_service_account(place.cluster, "roll-out") as account:
        for kind, name in (
            (Kind("v1", "Secret"), "x"),
            (ROLE, "roll-out"),
            (Kind("batch/v1", "Job"), "x"),
            (Kind("apps/v1", "Deployment"), "another"),
            (Kind("v1", "ConfigMap"), "erasediff-settings"),
            (Kind("v1", "Namespace"), "default"),
            (Kind("v1", "Node"), "x"),
        ):
            with pytest.raises(EraseDiffError, match="403"):
                account.get(kind, name)
        assert account.get(Kind("apps/v1", "Deployment"), "erasediff") is None, "control: its own may be looked for"
        account.namespace = "default"
        with pytest.raises(EraseDiffError, match="403"):
            account.get(Kind("v1", "ConfigMap"), "x")
