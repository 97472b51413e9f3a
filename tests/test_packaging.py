"""What a user installs: the typed package, with the pipeline as data, and no other top-level name."""

import ast
import re
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
        "erasediff/evidence/certificate.html.j2",
        "erasediff/evidence/letter.html.j2",
    } <= wheel_names


def test_params_yaml_spells_out_the_defaults():
    from erasediff.records.config import RunConfig, load_config

    assert load_config(ROOT / "params.yaml") == RunConfig()
    assert (ROOT / "params.yaml").read_text().count(":") > 40  # control: it spells them out, an empty file would be equal too


def needed(*extras):
    done = subprocess.run([sys.executable, "images/needed.py", "pyproject.toml", *extras], cwd=ROOT, capture_output=True, text=True, check=True)
    return {re.split(r"[^A-Za-z0-9._-]", line)[0] for line in done.stdout.splitlines()}


def test_an_image_gets_what_the_extras_of_its_extras_need():
    assert {"torch", "diffusers", "onnxruntime", "cryptography"} <= needed("cpu")
    assert "erasediff" not in needed("cpu", "gpu", "s3")
    assert not {"torch", "mlflow", "dvc", "diffusers", "kfp"} & needed("verify"), "control: what verifies needs none of it"


@pytest.mark.parametrize("role", ["pipeline", "train"])
def test_the_images_wheels_are_fetched_for_the_extras_that_the_image_asks(role):
    from tests.images.building import extras_of

    said = Path(ROOT, f"images/{role}.Containerfile").read_text()
    assert {"cpu", "s3", "postgres", "hsm"} <= set(extras_of(said)), "a token's key signs on the cluster as well"
    assert "another" in extras_of(said.replace(" hsm >", " hsm another >")), "control: one that is added is fetched too"


def third_party():
    """The modules that the library imports and that are neither Python's nor its own."""
    found = set()
    for path in (ROOT / "erasediff").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            )
            found |= {name.split(".")[0] for name in names if name}
    return found - set(sys.stdlib_module_names) - {"erasediff"}


BASE = {"cryptography", "model_signing", "pydantic", "pydantic_settings", "rfc3161_client", "rfc8785", "rich", "securesystemslib", "typer"}
SERVER = {"fastapi", "kserve", "prometheus_client", "starlette", "uvicorn"}


def test_of_every_module_it_is_known_which_extra_brings_it():
    """Else a command that lacks one ends with a traceback."""
    from erasediff.errors import explain_missing_module

    unknown = {name for name in third_party() - BASE - SERVER if explain_missing_module(ModuleNotFoundError(name=name)) is None}
    assert unknown == set()
    assert explain_missing_module(ModuleNotFoundError(name="a_typing_error")) is None, "control: our own mistakes stay unexpected"
