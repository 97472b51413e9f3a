"""The compiled pipeline runs in the images as they are, from the request to the champion.

What came of it is read from the outcome and from the files' owners: the local Docker runner takes a container that ends
before it is looked at for a success.
"""

import os
from datetime import UTC, datetime

import docker
import pytest
import yaml
from kfp import components, local

from erasediff.envelopes import read_public_key, read_signed
from erasediff.evidence.keys import PRIVATE, PUBLIC, new_key
from erasediff.records.config import load_config
from erasediff.records.core import SERVED, Outcome, ServedModel, Verdict
from erasediff.records.policy import load_policy
from erasediff.records.positions import positioned_requests
from tests.digits import handed
from tests.images.building import ROOT

QUICK = ROOT / "tests/e2e/quick"
USER = 10001


def signing_with(key):
    """The compiled pipeline with the signing key's place in every step; on a cluster a ConfigMap says it, which the local runner does not read."""
    pipeline, *rest = yaml.safe_load_all((ROOT / "pipelines/compiled/erasure.yaml").read_text())
    for executor in pipeline["deploymentSpec"]["executors"].values():
        executor["container"].setdefault("env", []).append({"name": "ERASEDIFF_SIGNING_KEY", "value": str(key)})
    return yaml.safe_dump_all([pipeline, *rest])


@pytest.fixture(scope="module")
def workdir(images, tmp_path_factory):
    """The workdir of a run in locked-down containers without a network: MLflow in a file, the DVC remote in a folder."""
    root = tmp_path_factory.mktemp("docker")
    work, bookkeeping = root / "work", root / "kfp"
    for folder in (work, bookkeeping):
        folder.mkdir()
        folder.chmod(0o777)  # the images' user is nobody here
    for folder in (root, *root.parents[:2]):
        folder.chmod(0o755)
    documents = {
        "request": positioned_requests(handed(3))[0],
        "config": load_config(QUICK / "config.yaml"),
        "policy": load_policy(QUICK / "policy.yaml"),
    }
    keys = root / "keys"
    new_key(keys, None, datetime.now(UTC).replace(microsecond=0), None)
    os.chown(keys / PRIVATE, USER, 0)
    runner = local.DockerRunner(
        mounts=[docker.types.Mount(str(work), str(work), type="bind"), docker.types.Mount(str(keys), str(keys), type="bind", read_only=True)],
        read_only=True,
        tmpfs={"/tmp": "mode=1777"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
    )
    local.init(runner, pipeline_root=str(bookkeeping), raise_on_error=True)
    pipeline = components.load_component_from_text(signing_with(keys / PRIVATE))
    pipeline(workdir=str(work), **{name: document.canonical().decode() for name, document in documents.items()})
    return work


def test_the_whole_pipeline_ends_with_a_champion(workdir):
    outcome = Outcome.read(workdir / "outcome.json")
    assert outcome.error is None
    assert outcome.verdict is Verdict.PASS
    assert outcome.champion is not None


def test_it_was_the_images_user_that_wrote_all_of_it(workdir):
    """Else it ran somewhere else, or as root."""
    owners = {path.lstat().st_uid for path in workdir.rglob("*")}
    assert owners == {USER}


def test_the_exported_model_is_there_to_be_served(workdir):
    """Once in the run, and once as MLflow's version of it."""
    exported, registered = (path.read_bytes() for path in workdir.rglob("served.json"))
    assert exported == registered
    public = read_public_key(workdir.parent / "keys" / PUBLIC)
    assert read_signed(exported, public, SERVED, ServedModel, "served.json").forgotten == ("3",)
