"""What a user installs: the typed package, with the pipeline as data, and no other top-level name."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_one_top_level_package(wheel_names):
    assert {name.split("/")[0] for name in wheel_names if ".dist-info" not in name.split("/")[0]} == {"erasediff"}


def test_the_wheel_is_typed_and_ships_the_pipeline_the_policy_and_the_templates(wheel_names):
    assert {
        "erasediff/py.typed",
        "erasediff/_shipped/pipelines/local.py",
        "erasediff/_shipped/pipelines/submit.py",
        "erasediff/_shipped/pipelines/compiled/erasure.yaml",
        "erasediff/_shipped/pipelines/compiled/erasure-cpu.yaml",
        "erasediff/_shipped/pipelines/compiled/erasure-gpu.yaml",
        "erasediff/_shipped/pipelines/compiled/erasure-gpu-multi.yaml",
        "erasediff/_shipped/policies/class-conditional.yaml",
        "erasediff/_shipped/policies/text-to-image.yaml",
        "erasediff/evaluate/report/report.html.j2",
        "erasediff/evidence/status.html.j2",
    } <= wheel_names


def test_params_yaml_spells_out_the_defaults():
    from erasediff.records.config import RunConfig, load_config

    assert load_config(ROOT / "params.yaml") == RunConfig()
    assert (ROOT / "params.yaml").read_text().count(":") > 40  # control: it spells them out, an empty file would be equal too
