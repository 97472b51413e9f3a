"""The lie: 'the steps run on Kubernetes', of steps that ran on the machine that built them, as root, with files of its own.

The image, the account, the Role and the settings are the project's; MLflow and the S3 store are real servers on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from erasediff.attempts.workdir import Workdir
from erasediff.cluster.api import Cluster, Kind
from erasediff.records.core import BaseRecord, ForgetSetRecord
from pipelines.tasks import CREDENTIALS_SECRET, USER, WORKDIR_CLAIM, WORKDIR_MOUNT
from tests.cluster.conftest import claim_over, new_namespace, this_machine
from tests.cluster.jobs import Ended, pod_of, run_job
from tests.cluster.test_manifests import here
from tests.manifests.built import built
from tests.manifests.restricted import findings
from tests.mlflow_server import mlflow_server
from tests.proxy import FaultyProxy
from tests.s3 import ENVIRONMENT, s3_server

BUCKET, LABEL, IMAGES = "erasediff-forget-sets", 3, 183
QUICK = Path(__file__).parents[1] / "e2e/quick"
CONFIG = "base_training: {steps: 20}\ndetector: {steps: 20}\nsampler: {steps: 2}\n"
STEPS = ("check-prerequisites", "train-base", "version-forget-set")
OF_THE_STEPS = {("ServiceAccount", "erasediff-pipeline"), ("Role", "erasediff-pipeline"), ("RoleBinding", "erasediff-pipeline")}


@dataclass
class Stage:
    """A namespace with the manifests' account, Role and settings, a workdir, and the services that the settings name."""

    cluster: Cluster
    image: str
    folder: Path
    mlflow: MlflowClient
    store: Any
    jobs: int = 0

    def run(self, step: str, *arguments: str) -> Ended:
        return self.run_command(step, ["erasediff", step, "--workdir", WORKDIR_MOUNT, *arguments])

    def run_command(self, step: str, command: list[str], **changed: object) -> Ended:
        self.jobs += 1
        return run_job(self.cluster, f"{step}-{self.jobs}", pod_of(step, self.image, command) | changed)

    def open_attempt(self, name: str, label: int) -> Ended:
        documents = ("--config", f"{WORKDIR_MOUNT}/config.yaml", "--policy", f"{WORKDIR_MOUNT}/policy.yaml")
        return self.run("check-prerequisites", *documents, "--forget-label", str(label), "--run", name)

    def left(self) -> dict[str, tuple[int, bytes]]:
        """Every file of the workdir, with its moment, but for how long the steps took."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.name != "seconds.json"]
        return {str(path.relative_to(self.folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    def stored(self) -> dict[str, str]:
        """Every object of the bucket, with its moment."""
        return {found["Key"]: str(found["LastModified"]) for found in self.store.list_objects_v2(Bucket=BUCKET).get("Contents", ())}

    def tracked(self) -> tuple[list[str], list[str]]:
        """MLflow's runs, and the versions of the model."""
        runs = self.mlflow.search_runs([found.experiment_id for found in self.mlflow.search_experiments()])
        return sorted(run.info.run_id for run in runs), [found.version for found in self.mlflow.search_model_versions("name='digits'")]


def apply_manifests(cluster: Cluster, settings: dict[str, str]) -> None:
    """What the base's manifests bring for the steps; only the services' addresses are this machine's."""
    objects = {(found["kind"], found["metadata"]["name"]): found for found in here("dev", cluster.namespace)}
    assert set(settings) <= set(objects["ConfigMap", "erasediff-settings"]["data"])
    objects["ConfigMap", "erasediff-settings"]["data"] |= settings
    for key in ("ConfigMap", "erasediff-settings"), *sorted(OF_THE_STEPS):
        cluster.create(Kind(objects[key]["apiVersion"], key[0]), objects[key])
    credentials = {name: ENVIRONMENT[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    cluster.create(Kind("v1", "Secret"), {"metadata": {"name": CREDENTIALS_SECRET}, "stringData": credentials})


@contextmanager
def staged(cluster: Cluster, image: str, root: Path) -> Iterator[Stage]:
    address, folder = this_machine(cluster), root / "workdir"
    folder.mkdir()
    folder.chmod(0o777)  # a volume of the cluster would belong to the pods' group
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "policy.yaml").write_text((QUICK / "policy.yaml").read_text())
    with (
        pytest.MonkeyPatch.context() as patch,
        mlflow_server(root, address) as uri,
        s3_server(patch, BUCKET, address) as (store, client),
        claim_over(cluster, WORKDIR_CLAIM, folder),
    ):
        remote = {"ERASEDIFF_DVC_REMOTE": f"s3://{BUCKET}", "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL": store}
        apply_manifests(cluster, {"MLFLOW_TRACKING_URI": uri, **remote})
        yield Stage(cluster, image, folder, MlflowClient(uri), client)


@pytest.fixture(scope="module")
def stage(kubeconfig: Path, pipeline_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with new_namespace(kubeconfig) as cluster, staged(cluster, pipeline_image, tmp_path_factory.mktemp("jobs")) as stage:
        yield stage


@pytest.fixture(scope="module")
def first(stage: Stage) -> dict[str, Ended]:
    """The first steps of an attempt, a Job each."""
    return {
        "check-prerequisites": stage.open_attempt("one", LABEL),
        "train-base": stage.run("train-base", "--run", "one"),
        "version-forget-set": stage.run("version-forget-set", "--run", "one"),
    }


def test_steps_run_as_jobs_and_leave_their_records_in_the_workdir(stage: Stage, first: dict[str, Ended]) -> None:
    assert {name: (ended.condition, ended.code) for name, ended in first.items()} == dict.fromkeys(first, ("Complete", 0)), first
    run = Workdir(stage.folder).attempt("one")
    base, forget = run.need(BaseRecord), run.need(ForgetSetRecord)
    assert run.plan().position == forget.label == LABEL
    assert base.made_from == {"plan": run.plan().digest()}
    assert forget.made_from == {"plan": run.plan().digest(), "base": base.digest()}
    assert forget.count == IMAGES
    champion = stage.mlflow.get_model_version_by_alias("digits", "champion")
    assert (champion.version, champion.tags["erasediff.weights_sha256"]) == (base.version, base.model.weights.sha256)
    assert [key for key in stage.stored() if key.startswith(f"{run.plan().request.digest()[:16]}/")] == list(stage.stored())
    assert not list(stage.folder.rglob("shard-*.npz")), "forget images stay behind"


def test_the_images_user_wrote_all_of_it(stage: Stage, first: dict[str, Ended]) -> None:
    """Else it ran somewhere else, or as root."""
    owners = {str(path.relative_to(stage.folder)): path.lstat().st_uid for path in stage.folder.rglob("*")}
    assert {owner for name, owner in owners.items() if name not in {"config.yaml", "policy.yaml"}} == {USER}


def test_a_second_run_of_the_steps_does_nothing_twice(stage: Stage, first: dict[str, Ended]) -> None:
    before = stage.left(), stage.stored(), stage.tracked()
    again = [stage.open_attempt("one", LABEL), stage.run("train-base", "--run", "one"), stage.run("version-forget-set", "--run", "one")]
    assert [(ended.condition, ended.code) for ended in again] == [("Complete", 0)] * 3, again
    after = stage.left(), stage.stored(), stage.tracked()
    assert after[0].keys() == before[0].keys()
    assert {name for name in before[0] if before[0][name] != after[0][name]} <= {"runs/current"}, "a pointer that is written anew"
    assert before[0]["runs/current"][1] == after[0]["runs/current"][1]
    assert after[1:] == before[1:]

    assert stage.open_attempt("two", LABEL + 1).code == 0
    assert stage.left().keys() > before[0].keys(), "control: another request leaves something"
    assert len(stage.tracked()[0]) == len(before[2][0]) + 1


def test_a_request_that_is_not_valid_ends_the_job_as_failed_with_a_sentence_in_the_pods_log(stage: Stage, first: dict[str, Ended]) -> None:
    before = stage.left()
    ended = stage.open_attempt("three", 11)
    assert (ended.condition, ended.code) == ("Failed", 2)
    assert ended.log == "erasediff: class (1 name, not shown in a pod) is not in dataset digits: choose one of (10 names, not shown in a pod).\n"
    assert stage.left() == before
    early = stage.run("version-forget-set", "--run", "three")
    assert (early.condition, early.code) == ("Failed", 2)
    assert "there is no run 'three'" in early.log


CONFINED = """
import json, os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def writable(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY)); return True
    except OSError as error:
        return error.strerror
names = ("CapBnd", "NoNewPrivs", "Seccomp")
print(json.dumps({"uid": os.getuid(), **{name: int(status[name], 16) for name in names}, "tmp": writable("/tmp/x"), "root": writable("/opt/x")}))
"""


def test_a_step_is_confined_as_its_task_asks(stage: Stage) -> None:
    """Asked of the kernel, in the pod of every step; and what the namespace's standard would find."""
    assert {step: findings(pod_of(step, stage.image, [])) for step in STEPS} == {step: [] for step in STEPS}
    command = ["python", "-c", CONFINED]
    confined = json.loads(stage.run_command("train-base", command).log)
    assert confined == {"uid": USER, "CapBnd": 0, "NoNewPrivs": 1, "Seccomp": 2, "tmp": True, "root": "Read-only file system"}

    (container,) = pod_of("train-base", stage.image, command)["containers"]
    free = stage.run_command("train-base", command, securityContext={"runAsUser": 0}, containers=[container | {"securityContext": {}}])
    seen = json.loads(free.log)
    assert seen["CapBnd"] > 0, "control: what the context takes away is there without it"
    assert (seen["uid"], seen["NoNewPrivs"], seen["Seccomp"], seen["root"]) == (0, 0, 0, True)


ASKING = """
from erasediff.errors import EraseDiffError
from erasediff.cluster.api import DEPLOYMENT, Cluster, Kind
with Cluster.configured() as cluster:
    print(cluster.namespace, cluster.get(DEPLOYMENT, "erasediff"))
    try:
        cluster.get(Kind("v1", "Secret"), "erasediff-credentials")
    except EraseDiffError as error:
        print(error)
"""


def test_a_step_asks_the_api_server_with_the_token_of_its_account(stage: Stage) -> None:
    """And gets what the Role of the manifests gives, and no secret."""
    known = urlsplit(stage.cluster._api.configuration.host)
    proxy = FaultyProxy(int(known.port or 443), str(known.hostname), this_machine(stage.cluster))  # pods need not reach where it listens
    pod = pod_of("roll-out", stage.image, ["python", "-c", ASKING])
    where = {"KUBERNETES_SERVICE_HOST": this_machine(stage.cluster), "KUBERNETES_SERVICE_PORT": str(proxy.port)}
    pod["containers"][0]["env"] += [{"name": name, "value": value} for name, value in where.items()]
    try:
        ended = run_job(stage.cluster, "asking", pod)
        stranger = run_job(stage.cluster, "stranger", pod | {"serviceAccountName": "default"})
    finally:
        proxy.close()
    assert ended.log.splitlines()[0] == f"{stage.cluster.namespace} None", ended.log
    assert "no Role allows this account to read Secret" in ended.log.splitlines()[1]
    assert stranger.code != 0, "control: another account may not look"
    assert "no Role allows this account to read Deployment" in stranger.log


def test_a_volume_that_belongs_to_root_is_prepared_by_the_manifests_job(kubeconfig: Path, pipeline_image: str, tmp_path: Path) -> None:
    """A fresh volume of most storage classes. Control: before the Job, a step says what is missing."""
    folder = tmp_path / "volume"
    folder.mkdir()
    folder.chmod(0o755)
    (job,) = (found for found in built("once") if found["kind"] == "Job")
    job["spec"]["template"]["spec"]["containers"][0]["image"] = pipeline_image
    with new_namespace(kubeconfig) as cluster, claim_over(cluster, WORKDIR_CLAIM, folder, "local"):
        apply_manifests(cluster, {})
        cluster.delete(Kind("v1", "ConfigMap"), "erasediff-settings")  # MLflow and the forget sets in the workdir
        step = pod_of("check-prerequisites", pipeline_image, ["erasediff", "check-prerequisites", "--workdir", WORKDIR_MOUNT, "--forget-label", "3"])
        step["containers"][0]["env"] += [{"name": "ERASEDIFF_SIGNING_KEY", "value": "/signing/signing-key.pem"}]  # that map named it
        refused = run_job(cluster, "refused", step)
        assert (refused.code, refused.log.count("\n")) == (2, 1), refused.log
        assert "create the Job erasediff-prepare-workdir of manifests/once" in refused.log
        prepared = run_job(cluster, "prepared", job["spec"]["template"]["spec"])
        assert (prepared.condition, prepared.code) == ("Complete", 0), prepared.log
        assert run_job(cluster, "taken", step).code == 0
