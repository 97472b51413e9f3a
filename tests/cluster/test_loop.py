"""The lies: 'the address stays', of one that a promotion takes away; 'no request was lost', by a client that asked during one roll-out alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from erasediff.cluster.api import Cluster
from erasediff.errors import RolledBack, Unreachable
from erasediff.rollout.backend import Candidate
from erasediff.rollout.kserve import predictor_name, service_name
from erasediff.rollout.rules import ClusterRules
from erasediff.rollout.store import Exported
from tests.cluster.client import RATE, Client
from tests.cluster.conftest import Place
from tests.cluster.kserve_place import KServe
from tests.cluster.kserve_stand_in import StandInController
from tests.cluster.test_rights import as_service_account, grant, rules_of_the_manifests
from tests.exported import describe


@dataclass
class Backend:
    """A backend, by what a client and a roll-out need of it."""

    cluster: Cluster
    service: str
    publish: Callable[[Exported], Candidate]
    roll_out: Callable[[Candidate], str]


@contextmanager
def of_deployments(place: Place) -> Iterator[Backend]:
    yield Backend(place.cluster, "erasediff", place.publish, lambda candidate: place.roll_out(candidate, replicas=2))


@contextmanager
def of_kserve(place: Place) -> Iterator[Backend]:
    """Roll-outs have the Role of the manifests and nothing more."""
    grant(place.cluster, rules_of_the_manifests())
    image = place.settings.image
    assert image is not None
    with StandInController(place.cluster, "erasediff", image) as controller, as_service_account(place.cluster, "roll-out") as account:
        kserve = KServe(Place(account, place.settings), controller, "Standard")

        def roll_out(candidate: Candidate) -> str:
            return kserve.roll_out(candidate, replicas=2, timeout_seconds=240)

        yield Backend(place.cluster, "erasediff-stable", place.publish, roll_out)


@pytest.fixture(params=[of_deployments, of_kserve], ids=["deployment", "kserve"])
def backend(request: pytest.FixtureRequest, crd: None, place: Place) -> Iterator[Backend]:
    with request.param(place) as made:
        yield made


@pytest.fixture
def four(versions: tuple[Exported, Exported], tmp_path: Path) -> list[Exported]:
    """The first model under four manifests: what is served is told apart by the weights that they name."""
    found = []
    for epoch in range(1, 5):
        folder = shutil.copytree(versions[0].folder, tmp_path / f"version-{epoch}")
        describe(folder, epoch=epoch, weights_sha256=weights(epoch))
        found.append(Exported.read(folder))
    return found


def weights(epoch: int) -> str:
    return f"{epoch:064x}"


def wait_until(client: Client, served: str) -> None:
    """Let the client see what was promoted."""
    end = time.monotonic() + 10
    while client.weights[-4:] != [served] * 4:
        assert time.monotonic() < end, f"the client still gets {client.weights[-4:]}"
        time.sleep(0.1)


def test_in_three_promotions_in_a_row_no_request_is_lost(backend: Backend, four: list[Exported]) -> None:
    candidates = [backend.publish(version) for version in four]
    backend.roll_out(candidates[0])
    # Control: KServe's own Service of the first predictor, which was the only address inside the cluster. Plain Deployments have none such.
    own = Client(backend.cluster, service_name("erasediff", predictor_name(candidates[0].uri)))
    with Client(backend.cluster, backend.service) as client:
        wait_until(client, weights(1))
        with own:
            for epoch, candidate in enumerate(candidates[1:], 2):
                backend.roll_out(candidate)
                wait_until(client, weights(epoch))
    print(f"{backend.service}: {dict(client.answers)} in {client.seconds:.0f} s; {own._service}: {dict(own.answers)}")
    assert set(client.answers) == {"200"}
    assert client.answers["200"] > 0.9 * RATE * client.seconds
    assert list(dict.fromkeys(client.weights)) == [weights(epoch) for epoch in range(1, 5)]
    assert set(own.answers) - {"200"}, "control: a client sees an address that goes away"


def test_a_roll_back_after_the_promotion_loses_no_request(crd: None, place: Place, four: list[Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    """KServe: the previous predictor is gone by then. It comes up beside the new one before the clients go back to it."""

    def fail(self: ClusterRules, epoch: int) -> None:
        raise Unreachable("the rules could not be raised.")

    with of_kserve(place) as backend:
        first, second = (backend.publish(version) for version in four[:2])
        backend.roll_out(first)
        monkeypatch.setattr(ClusterRules, "raise_minimum", fail)
        with Client(backend.cluster, backend.service) as client:
            with pytest.raises(RolledBack, match=r"the rules could not be raised\); the previous version goes on serving"):
                backend.roll_out(second)
            wait_until(client, weights(1))
    assert set(client.answers) == {"200"}
    assert set(client.weights) == {weights(1), weights(2)}, "control: it had been promoted"
