"""The Containerfiles carry nothing of the machine they were written on, and what they copy is let into the build."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "images").glob("*.Containerfile"))
PRIVATE = re.compile(r"cert|\.crt|trusted-host|pip\.conf|PIP_|_proxy|--mount=type=secret|ADD\s+http", re.IGNORECASE)
PUBLIC_HOSTS = {"pypi.org", "download.pytorch.org"}


def private_in(text):
    """Lines that carry a machine's certificates, index or proxy; what is said in comments is not built."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in lines if PRIVATE.search(line) or set(re.findall(r"https?://([^/\s]+)", line)) - PUBLIC_HOSTS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_containerfile_names_no_certificate_and_no_index_of_a_machine(path):
    assert private_in(path.read_text()) == []


def test_control_a_certificate_and_an_index_are_found():
    assert len(private_in("ENV PIP_CERT=/etc/ca.crt\nRUN pip install --index-url https://mirror.example/simple x\n# PIP_CERT\n")) == 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_image_ends_as_a_numeric_user_with_two_stages_behind_it(path):
    lines = path.read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:0"]
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM ${BUILD_BASE} AS build", "FROM ${BASE}"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_everything_that_is_copied_is_let_in_by_the_ignore_file(path):
    """A file that is not let in fails a build of an hour at its last step."""
    let_in = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in path.read_text().splitlines() if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]}
    assert copied <= let_in
    assert all((ROOT / name).exists() for name in copied)


def test_the_two_images_of_the_pipeline_are_built_alike_up_to_their_last_stage():
    """Else a step would run one version of the code and its neighbour another; and the second build takes the first one's layers."""
    stages = [path.read_text().split("FROM ")[1] for path in FILES if path.stem.split(".")[0] != "serve"]
    assert len(stages) == 2
    assert stages[0] == stages[1]


def test_the_bases_are_no_moving_latest():
    bases = re.findall(r"^\w+_BASE \?= (\S+)$", (ROOT / "images/bases.mk").read_text(), re.MULTILINE)
    assert bases
    assert not [base for base in bases if base.endswith(":latest") or (":" not in base and not base.startswith("$("))]
