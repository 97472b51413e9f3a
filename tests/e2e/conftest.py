"""Real services for the end-to-end tests: an MLflow server over HTTP on SQLite, and an S3 store."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.mlflow_server import mlflow_server

BUCKET = "forget-sets"


@dataclass(frozen=True)
class Services:
    """Where the services answer, and the environment that points a command at them."""

    mlflow_uri: str
    s3_endpoint: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory):
    """An MLflow server's address, and the folder in which it keeps everything."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as address:
        yield address, folder


@pytest.fixture(scope="session")
def services(mlflow):
    import boto3

    mlflow_uri, folder = mlflow

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test").create_bucket(
        Bucket=BUCKET
    )
    environment = {
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "ERASEDIFF_MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "ERASEDIFF_DVC_REMOTE": f"s3://{BUCKET}/erasures",
        "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        **credentials,
    }
    try:
        yield Services(mlflow_uri, endpoint, environment)
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
