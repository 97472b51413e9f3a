"""Real services for the end-to-end tests: an MLflow server over HTTP on SQLite, and an S3 store."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

BUCKET = "forget-sets"


@dataclass(frozen=True)
class Services:
    """Where the services answer, and the environment that points a command at them."""

    mlflow_uri: str
    s3_endpoint: str
    environment: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(url: str, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the MLflow server ended while starting"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(url)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="session")
def services(mlflow_server):
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test").create_bucket(
        Bucket=BUCKET
    )
    environment = {
        "MLFLOW_TRACKING_URI": mlflow_server,
        "ERASEDIFF_DVC_REMOTE": f"s3://{BUCKET}/erasures",
        "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        **credentials,
    }
    try:
        yield Services(mlflow_server, endpoint, environment)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def erasediff():
    """Run the command line as a user does; the answer holds the exit code and the output."""

    def run(*arguments: str, environment: dict[str, str] | None = None, timeout: float = 850) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).parent / "erasediff"), *map(str, arguments)]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ERASEDIFF", "AWS"))}
        return subprocess.run(command, env={**inherited, **(environment or {})}, capture_output=True, text=True, timeout=timeout, check=False)

    return run
