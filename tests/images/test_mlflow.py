"""The MLflow of the manifests runs from the pipeline's image, on PostgreSQL and S3, by the command and the settings that production has."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from tests.images.building import docker
from tests.manifests.built import built, of_kind

BUCKET = "erasediff-mlflow"
CONTAINER = "erasediff-test-mlflow"
NAMED = {"Host": "mlflow:5000"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, answers, seconds=180):
    deadline = time.monotonic() + seconds
    while not answers():
        assert time.monotonic() < deadline, f"{what} did not answer within {seconds} s"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A server of Debian's package, as a user that is not root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("MLflow is tested on PostgreSQL: apt-get install postgresql.")
    programs = found[-1]
    folder, port = tmp_path_factory.mktemp("postgres"), free_port()
    for parent in (*folder.parents[:3], folder):
        parent.chmod(0o755)
    shutil.chown(folder, "nobody")
    initdb = [f"{programs}/initdb", "--pgdata", folder / "data", "--username", "mlflow", "--auth", "trust"]
    subprocess.run(initdb, check=True, capture_output=True, user="nobody")
    command = [f"{programs}/postgres", "-D", folder / "data", "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user="nobody")
    ready = [f"{programs}/pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    try:
        wait("PostgreSQL", lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def store():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket=BUCKET)
    client.address = address
    yield client
    server.stop()


@pytest.fixture(scope="module")
def mlflow(images, postgres, store):
    """The container of the Deployment in prod; only the addresses are this machine's."""
    objects, port = built("overlays/prod"), free_port()
    (container,) = of_kind(objects, "Deployment")["mlflow"]["spec"]["template"]["spec"]["containers"]
    settings = of_kind(objects, "ConfigMap")["erasediff-mlflow"]["data"] | {
        "HOME": "/tmp",
        "MLFLOW_S3_ENDPOINT_URL": store.address,
        "MLFLOW_BACKEND_STORE_URI": postgres,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [{"5000": str(port), "0.0.0.0": "127.0.0.1"}.get(part, part) for part in container["command"]]
    given = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
    locked = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--user", "10001:10001", "--network", "host")
    docker("run", "--detach", "--name", CONTAINER, *locked, *given, images["pipeline"], *command)
    session = requests.Session()
    session.trust_env = False
    session.address = f"http://127.0.0.1:{port}"
    try:
        wait("MLflow", lambda: is_healthy(session))
        yield session
    finally:
        docker("rm", "--force", CONTAINER)


def is_healthy(session):
    try:
        return session.get(f"{session.address}/health", timeout=5).ok
    except requests.ConnectionError:
        if docker("inspect", "--format", "{{.State.Running}}", CONTAINER) != "true":
            said = subprocess.run(["docker", "logs", CONTAINER], capture_output=True, text=True, check=False)
            pytest.fail(f"MLflow ended while starting: {said.stdout[-1000:]}{said.stderr[-2000:]}")
        return False


def test_what_is_registered_outlives_the_pod(mlflow):
    api = f"{mlflow.address}/api/2.0/mlflow"
    assert mlflow.post(f"{api}/registered-models/create", json={"name": "digits"}, headers=NAMED, timeout=60).ok
    docker("restart", CONTAINER)
    wait("MLflow", lambda: is_healthy(mlflow))
    found = mlflow.get(f"{api}/registered-models/get", params={"name": "digits"}, headers=NAMED, timeout=60).json()
    assert found["registered_model"]["name"] == "digits"


def test_artifacts_go_to_the_store_through_the_server(mlflow, store):
    """So that no client needs the store's credentials."""
    address = f"{mlflow.address}/api/2.0/mlflow-artifacts/artifacts/1/report.html"
    assert mlflow.put(address, data=b"evidence", headers=NAMED, timeout=60).ok
    assert store.get_object(Bucket=BUCKET, Key="1/report.html")["Body"].read() == b"evidence"


def test_a_request_under_another_hosts_name_is_refused(mlflow):
    address = f"{mlflow.address}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert mlflow.get(address, headers={"Host": "elsewhere.example"}, timeout=60).status_code == 403
    assert mlflow.get(address, headers=NAMED, timeout=60).ok  # control
