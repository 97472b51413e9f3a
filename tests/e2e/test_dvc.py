"""``dvc repro`` runs the same steps through the same command line, and run again does nothing."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import clean

ROOT = Path(__file__).parent.parent.parent
QUICK = Path(__file__).parent / "quick"


ANSWERS = {"purge", "certify", "regate"}
"""What only the ledger asks for: the pipeline has them under a condition, and a laptop as commands."""


@pytest.fixture(scope="module")
def dvc(tmp_path_factory, warmed):
    """DVC in a project folder with the committed dvc.yaml and the quick configuration in place of the default one."""
    folder = tmp_path_factory.mktemp("dvc")
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(QUICK / "config.yaml", folder / "params.yaml")
    (folder / "policies").mkdir()
    shutil.copy(QUICK / "policy.yaml", folder / "policies/class-conditional.yaml")
    environment = clean() | {
        "PATH": f"{warmed.programs(folder / '.programs')}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".site"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / ".global"),
    }

    def run(*arguments: str) -> str:
        done = warmed("dvc", *arguments, environment=environment, folder=str(folder))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("init", "--no-scm", "--quiet")
    return folder, run


def test_repro_runs_every_stage_and_then_nothing(dvc):
    project, run = dvc
    stages = list(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
    first = run("repro")
    assert [s for s in stages if f"Running stage '{s}'" in first] == stages
    promotions = (project / "erasediff-work/promotions.jsonl").read_bytes()
    again = run("repro")
    assert "Running stage" not in again
    assert (project / "erasediff-work/promotions.jsonl").read_bytes() == promotions


def test_the_stages_are_the_pipelines_steps():
    from components.catalogue import STEPS

    assert tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]) == tuple(step for step in STEPS if step not in ANSWERS)
