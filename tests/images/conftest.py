"""A container engine, the stand-ins for the published bases, and the images that are built on them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.building import NAMES, ROOT, build

HOW = "run `make test-images` as root on Debian 12 with docker.io and mmdebstrap, or with DOCKER_HOST set to an engine that may be filled"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.images)
            item.add_marker(pytest.mark.timeout(3600))  # the first run downloads and builds


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """The engine of DOCKER_HOST, or one that is started here. Its images are kept in build/, so that a second run builds little."""
    if os.environ.get("DOCKER_HOST"):
        yield
        return
    if os.geteuid() != 0 or not all(map(shutil.which, ("dockerd", "docker", "mmdebstrap"))):
        pytest.skip(f"no container engine is at hand: {HOW}.")
    state = Path(tempfile.mkdtemp(prefix="erasediff-docker-", dir="/tmp"))  # a socket needs a short path
    command = ["dockerd", "--data-root", ROOT / "build/docker", "--exec-root", state / "exec", "--pidfile", state / "pid"]
    command += ["--host", f"unix://{state}/socket", "--iptables=false", "--bridge=none"]
    with (state / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{state}/socket")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
                assert process.poll() is None, (state / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, "dockerd did not answer within a minute"
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def images(engine: None) -> dict[str, str]:
    """Every image, built without a network."""
    return {role: build(role) for role in NAMES}
