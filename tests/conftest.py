"""Shared by all tests: one compute thread, no network, a tiny denoiser and real digits."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in subprocesses
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")  # asked again as often, with no pause
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")

import hypothesis
import pytest
import torch
from torch import Tensor

from erasediff.evidence.keys import PRIVATE
from erasediff.models.families.unet import build_unet
from erasediff.models.process import NoiseSchedule, squared_cosine
from erasediff.records.config import DenoiserConfig
from tests.issuer import issuer
from tests.migrated import make_empty_database, migrated
from tests.shared import share_in, shared
from tests.unsynced import unsynced

hypothesis.settings.register_profile("quick", max_examples=40, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=400, deadline=None)  # `make test-thorough`
hypothesis.settings.load_profile("quick")

TINY = DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4)


def pytest_collection_finish() -> None:
    """Spare every later collection of garbage the look at all modules, which exporting a graph had dozens of times."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums in another order differ in their last bits, so tests that compare bits fix the number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced():
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The folder of this run; a worker of xdist has a folder of its own inside it."""
    own = tmp_path_factory.getbasetemp()
    share_in((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared")


@pytest.fixture(scope="session", autouse=True)
def _migrated(_shared: None) -> Iterator[None]:
    with migrated(lambda: shared("mlflow.db", make_empty_database)):
        yield


@pytest.fixture(scope="session", autouse=True)
def _signing_key(_shared: None) -> Iterator[None]:
    """What tests export is signed by one issuer; a test about keys sets another, or none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERASEDIFF_SIGNING_KEY", str(issuer() / PRIVATE))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Nothing but this machine may be reached: a test that needs the network is no test."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and not (host in ("localhost", "::1") or host.startswith("127.")):
            raise RuntimeError(f"a test tried to reach {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """A test that leaves another umask decides the permissions of what later tests of its worker write."""
    os.umask(before := os.umask(0o022))
    yield
    left = os.umask(before)
    assert left == before, f"the test left the umask {left:03o}: take the fixture `pod`, which puts it back"


@pytest.fixture
def pod(_umask: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as one in a pod, where a step closes its umask."""
    os.umask(before := os.umask(0o022))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def tiny_unet() -> Callable[..., torch.nn.Module]:
    """Build a 45,000-parameter UNet for 8x8 images of ten classes; the same seed gives the same weights."""

    def build(seed: int = 0) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_unet(TINY, channels=1, size=8, classes=10).eval()

    return build


@pytest.fixture(scope="session")
def schedule() -> NoiseSchedule:
    """The forward process of the default sampler."""
    return squared_cosine(1000)


@pytest.fixture(scope="session")
def digit_bytes() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: ``uint8 [1797,8,8,1]`` and their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).reshape(-1, 8, 8, 1).mul(255 / 16).round().to(torch.uint8)
    return pixels, torch.from_numpy(labels).long()
