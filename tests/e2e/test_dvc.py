"""``dvc repro`` runs the same steps through the same command line, and run again does nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines import stages

ROOT = Path(__file__).parent.parent.parent
QUICK = Path(__file__).parent / "quick"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder with the committed dvc.yaml and the quick configuration in place of the default one."""
    folder = tmp_path_factory.mktemp("dvc")
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(QUICK / "config.yaml", folder / "params.yaml")
    (folder / "policies").mkdir()
    shutil.copy(QUICK / "policy.yaml", folder / "policies/class-conditional.yaml")
    dvc(folder, "init", "--no-scm", "--quiet")
    return folder


def dvc(folder: Path, *arguments: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ERASEDIFF", "AWS"))}
    environment = inherited | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".site"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / ".global"),
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_repro_runs_every_stage_and_then_nothing(project):
    stages = list(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
    first = dvc(project, "repro")
    assert [s for s in stages if f"Running stage '{s}'" in first] == stages
    promotions = (project / "erasediff-work/promotions.jsonl").read_bytes()
    again = dvc(project, "repro")
    assert "Running stage" not in again
    assert (project / "erasediff-work/promotions.jsonl").read_bytes() == promotions


def test_the_stages_are_the_pipelines_steps(project):
    assert (ROOT / "dvc.yaml").read_text() == stages.document()
