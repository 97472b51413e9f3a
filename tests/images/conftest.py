"""A container engine, the stand-ins for the published bases, and the images that are built on them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.images import PIPELINE_CPU, SERVE, TRAIN_GPU

ROOT = Path(__file__).parent.parent.parent
STAND_IN = Path(__file__).parent / "stand-in-base"
HOW = "run `make test-images` as root on Debian 12 with docker.io and mmdebstrap, or with DOCKER_HOST set to an engine that may be filled"
NAMES = {"serve": SERVE, "pipeline": PIPELINE_CPU, "train": TRAIN_GPU}
DECIDED_BY = {
    "serve": ("requirements-serve.lock", "requirements-build.lock"),
    "pipeline": ("requirements.lock", "requirements-build.lock", "pyproject.toml", "images/needed.py"),
}
EXTRAS = ("cpu", "s3", "postgres")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.images)
            item.add_marker(pytest.mark.timeout(3600))  # the first run downloads and builds


def run(*command: str | Path) -> str:
    """The output of a command that succeeds."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def docker(*arguments: str | Path) -> str:
    return run("docker", *arguments)


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


def wheelhouse(role: str) -> Path:
    """What an image installs, as wheels that this machine's pip fetched; the build itself has no network."""
    said = [ROOT / name for name in DECIDED_BY[role]]
    folder = ROOT / f"build/wheels/{role}-{hashlib.sha256(b''.join(path.read_bytes() for path in said)).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    part = folder.with_suffix(".part")
    wheel = (sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", part)
    run(*wheel, "--no-deps", "--requirement", "requirements-build.lock")
    if role == "serve":
        run(*wheel, "--no-deps", "--requirement", "requirements-serve.lock")
    else:
        needed = part / "needed.txt"
        needed.write_text(run(sys.executable, "images/needed.py", "pyproject.toml", *EXTRAS))
        run(*wheel, "--constraint", "requirements.lock", "--requirement", needed)
        kfp = next(line for line in Path(ROOT, "requirements.lock").read_text().splitlines() if line.startswith("kfp=="))
        run(*wheel, "--no-deps", kfp)
    part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def images(engine: None) -> dict[str, str]:
    """Every image, built without a network under the name that the components know it by."""
    base = run(STAND_IN, "python")
    for role, name in NAMES.items():
        build_base = run(STAND_IN, "wheels", wheelhouse("serve" if role == "serve" else "pipeline"))
        arguments = {"BASE": base, "BUILD_BASE": build_base, "TORCH_INDEX": "", "VERSION": name.rpartition(":")[2], "REVISION": "0" * 40}
        given = [part for key, value in arguments.items() if role != "serve" or key != "TORCH_INDEX" for part in ("--build-arg", f"{key}={value}")]
        docker("build", "--network", "none", "--file", f"images/{role}.Containerfile", "--tag", name, *given, ".")
    return dict(NAMES)
