"""Real services for the end-to-end tests: an MLflow server over HTTP on SQLite, and an S3 store."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from erasediff.evidence.keys import PRIVATE
from tests.e2e import warm
from tests.e2e.numbers import QUICK
from tests.issuer import issuer
from tests.mlflow_server import mlflow_server
from tests.shared import shared

ROOT = Path(__file__).parents[2]
BUCKET = "forget-sets"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs, on machines of which some are three times as slow as others."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Services:
    """Where the services answer, and the environment that points a command at them."""

    mlflow_uri: str
    s3_endpoint: str
    mlflow_folder: Path
    environment: dict[str, str]

    def bucket(self):
        """A second client of the bucket, which knows nothing of the one under test."""
        import boto3

        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        return boto3.resource("s3", endpoint_url=self.s3_endpoint, **keys).Bucket(BUCKET)

    def versions(self) -> dict[str, bytes]:
        """Every version of every object, by its key and version."""
        return {f"{v.object_key}@{v.id}": v.get()["Body"].read() for v in self.bucket().object_versions.all() if v.size is not None}


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory):
    """An MLflow server's address, and the folder in which it keeps everything."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as address:
        yield address, folder


@pytest.fixture(scope="session")
def services(mlflow):
    mlflow_uri, folder = mlflow
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = {
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "ERASEDIFF_MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "ERASEDIFF_DVC_REMOTE": f"s3://{BUCKET}/erasures",
        "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        **credentials,
    }
    found = Services(mlflow_uri, endpoint, folder, environment)
    found.bucket().create()
    found.bucket().Versioning().enable()
    try:
        yield found
    finally:
        server.stop()


def clean(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command inherits: nothing that points it anywhere, but the key of the tests' issuer and what it is given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ERASEDIFF", "AWS"))}
    return kept | {"ERASEDIFF_SIGNING_KEY": str(issuer() / PRIVATE)} | dict(environment or {})


def log_of(workdir: Path) -> str:
    """The end of a run's log, for the message of a test that fails."""
    return (workdir / "pipeline.log").read_text()[-4000:]


@pytest.fixture(scope="session")
def erasediff_alone():
    """Run the command line as a user does; the answer holds the exit code and the output."""

    def run(*arguments: object, environment: dict[str, str] | None = None, timeout: float = 1700) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).parent / "erasediff"), *map(str, arguments)]
        return subprocess.run(command, env=clean(environment), capture_output=True, text=True, timeout=timeout, check=False)

    return run


@dataclass(frozen=True)
class Warm:
    """Programs that are forked from a process which has made their imports; see warm.py."""

    address: str

    def __call__(self, *command: object, environment: dict[str, str], folder: str = "/") -> subprocess.CompletedProcess:
        """Run one to its end."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            words = [str(word) for word in command]
            code = warm.ask(self.address, words, environment, folder, (out.fileno(), errors.fileno()), 1700)
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), errors.read())

    def programs(self, folder: Path) -> Path:
        """A folder with such an ``erasediff`` and ``python``."""
        folder.mkdir()
        for name, program in (("erasediff", "erasediff"), ("python", folder / "python")):
            (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -IS {warm.__file__} ask {self.address} {program} "$@"\n')
            (folder / name).chmod(0o755)
        return folder


@pytest.fixture(scope="session")
def warmed():
    """Where to ask for programs without their imports."""
    folder = Path(tempfile.mkdtemp(prefix="erasediff-", dir="/tmp"))  # a socket needs a short path
    process = subprocess.Popen([sys.executable, "-P", warm.__file__, "serve", str(folder / "socket")], cwd=ROOT, env=clean())
    try:
        deadline = time.monotonic() + 300
        while not (folder / "socket").exists():
            assert process.poll() is None, "it ended while it made its imports"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Warm(str(folder / "socket"))
    finally:
        process.kill()
        process.wait(60)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def with_base(erasediff):
    """A workdir whose champion is the base of the quick configuration: for copies to start from."""

    def make(folder: Path) -> None:
        done = erasediff("train-base", "--config", QUICK / "config.yaml", "--workdir", folder)
        assert done.returncode == 0, done.stdout + done.stderr

    return shared("with-base", make)


@pytest.fixture(scope="session")
def erasediff(warmed):
    """The command line in a process of its own that has no imports to make."""

    def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        return warmed("erasediff", *arguments, environment=clean(environment))

    return run
