"""``dvc repro`` runs the same steps through the same command line, and run again does nothing."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from pipelines import stages
from tests.e2e.conftest import clean

ROOT = Path(__file__).parent.parent.parent
QUICK = Path(__file__).parent / "quick"


@pytest.fixture(scope="module")
def dvc(tmp_path_factory, warmed, with_base):
    """DVC in a project folder with the committed dvc.yaml and the quick configuration in place of the default one; a base is there already."""
    folder = tmp_path_factory.mktemp("dvc")
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(ROOT / "requirements.lock", folder)
    shutil.copytree(ROOT / "erasediff", folder / "erasediff", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(QUICK / "config.yaml", folder / "params.yaml")
    shutil.copytree(with_base, folder / "erasediff-work")
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
    run("config", "core.check_update", "false")  # else every command leaves a process behind that asks for a newer DVC
    return folder, run


def test_repro_runs_every_stage_once_and_again_what_depends_on_a_change(dvc):
    """Control: a change of the code, which every stage depends on, has all of them run again."""
    project, run = dvc
    names = list(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
    first = run("repro")
    assert [name for name in names if f"Running stage '{name}'" in first] == names
    promotions = (project / "erasediff-work/promotions.jsonl").read_bytes()
    again = run("repro")
    assert "Running stage" not in again
    assert (project / "erasediff-work/promotions.jsonl").read_bytes() == promotions
    shown = run("metrics", "show")
    assert "outcome.json" in shown
    assert "forget.detections" in shown
    (project / "erasediff/errors.py").write_text("changed")
    stale = run("status")
    assert all(f"{name}:" in stale for name in names)


def test_the_stages_are_the_pipelines_steps():
    assert (ROOT / "dvc.yaml").read_text() == stages.document()
