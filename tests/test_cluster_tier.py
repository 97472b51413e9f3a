"""The lies: 'CI passed', of a tier that failed; 'the cluster was tested', of one that nobody started and nobody missed."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.tier import BESIDE_THE_CHECKOUT, CRDS, CRDS_VARIABLE, PROGRAMS, VARIABLE, missing, run, tool

ROOT = Path(__file__).parent.parent
MADE, BUILT = "make test-cluster\n", "build\n"


def program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which all that a one-node cluster needs is there; `make` and the tool note that they were called."""
    for name in PROGRAMS:
        program(tmp_path / "bin" / name, "exit 0")
    program(tmp_path / "bin/make", f'echo "make $*" >> {tmp_path}/log')
    program(tmp_path / "tool/one-node-cluster", f'echo "$*" >> {tmp_path}/log')
    for name in CRDS:
        (tmp_path / name).touch()
    return {"PATH": f"{tmp_path}/bin", VARIABLE: str(tmp_path / "tool/one-node-cluster"), CRDS_VARIABLE: str(tmp_path)}


def called(tmp_path: Path) -> str:
    log = tmp_path / "log"
    return log.read_text() if log.exists() else ""


def ends(process: int, within_seconds: float) -> bool:
    """Whether the process, a stranger's child or nobody's, has ended by then: one that is killed may run on for a moment."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    with os.fdopen(handle) as ended:
        return bool(select.select([ended], [], [], within_seconds)[0])


def test_where_everything_is_there_the_cluster_is_built_and_the_tests_are_run(machine, tmp_path, capfd):
    assert run(machine, is_root=True) == 0
    assert called(tmp_path) == BUILT + MADE
    assert "left out" not in capfd.readouterr().out


def test_the_cluster_of_kubeconfig_needs_nothing_else_and_nothing_is_built(machine, tmp_path):
    assert run(machine | {"KUBECONFIG": "/some/where", VARIABLE: "/nowhere"}, is_root=False) == 0
    assert called(tmp_path) == MADE


@pytest.mark.parametrize("given", [{"KUBECONFIG": "/some/where"}, {}], ids=["KUBECONFIG", "one node"])
def test_a_test_that_fails_is_a_failure(machine, tmp_path, given):
    """Control beside the two above: the status is that of the tests."""
    program(tmp_path / "bin/make", "exit 2")
    assert run(machine | given, is_root=True) == 2


@pytest.mark.parametrize(
    ("lose", "is_root", "sentence"),
    [
        (lambda folder: (folder / "tool/one-node-cluster").unlink(), True, f"{VARIABLE} names no program"),
        (lambda folder: (folder / "tool/one-node-cluster").chmod(0o644), True, f"{VARIABLE} names no program"),
        (lambda folder: None, False, "only root can start a one-node cluster"),
        (lambda folder: (folder / "bin/dockerd").unlink(), True, "a one-node cluster needs dockerd"),
        (lambda folder: (folder / "bin/mmdebstrap").unlink(), True, "a one-node cluster needs mmdebstrap"),
    ],
    ids=["no tool", "no program", "no root", "no dockerd", "no mmdebstrap"],
)
def test_what_is_missing_is_said_in_one_line_with_how_to_run_it_and_nothing_is_started(machine, tmp_path, capfd, lose, is_root, sentence):
    lose(tmp_path)
    assert run(machine, is_root) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("left out: the cluster's tests, for KUBECONFIG is not set, and ")
    assert sentence in line
    assert "make test-cluster" in line
    assert called(tmp_path) == ""


@pytest.mark.parametrize("given", [{"KUBECONFIG": "/some/where"}, {}], ids=["KUBECONFIG", "one node"])
def test_definitions_that_are_missing_are_said_before_anything_is_started(machine, tmp_path, capfd, given):
    (tmp_path / CRDS[1]).unlink()
    assert run(machine | given, is_root=True) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert f"for {CRDS[1]} are not at hand: set {CRDS_VARIABLE}" in line
    assert called(tmp_path) == ""


def test_a_tool_that_cannot_build_is_said_and_is_no_failure(machine, tmp_path, capfd):
    program(tmp_path / "tool/one-node-cluster", "echo compiler error >&2; exit 7")
    assert run(machine, is_root=True) == 0
    said = capfd.readouterr()
    (line,) = said.out.splitlines()
    assert "`one-node-cluster build` ended with 7" in line
    assert "compiler error" in said.err, "its own words are not swallowed"
    assert called(tmp_path) == ""


def test_a_build_that_takes_too_long_is_ended_with_what_it_started(machine, tmp_path, capfd):
    program(tmp_path / "tool/one-node-cluster", f"/bin/sleep 600 & echo $! > {tmp_path}/compiler; wait")
    assert run(machine, is_root=True, build_seconds=1.5) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert "did not end within 0 minutes" in line
    assert called(tmp_path) == ""
    assert ends(int((tmp_path / "compiler").read_text()), within_seconds=60)


def test_a_process_that_goes_on_is_seen_to_go_on():
    """Control beside the one above."""
    assert not ends(os.getpid(), within_seconds=0.1)


def test_without_the_variable_the_tool_is_looked_for_beside_the_checkout(machine):
    del machine[VARIABLE]
    assert tool(machine) == BESIDE_THE_CHECKOUT == ROOT.parent / "shared/tools/one-node-cluster/one-node-cluster"
    said = missing(machine, is_root=True)
    assert said is None if BESIDE_THE_CHECKOUT.is_file() else "no such tool lies beside the checkout" in said


def test_ci_ends_with_the_status_of_the_tier(tmp_path):
    """The command as `.ci/run` has it, and nothing behind it that would hide its status."""
    script = (ROOT / ".ci/run").read_text().splitlines()
    line = next(line for line in script if "tests.cluster.tier" in line)
    assert "set -euo pipefail" in script
    program(tmp_path / "bin/make", "exit 3")
    for name in CRDS:
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "KUBECONFIG": "/some/where", CRDS_VARIABLE: str(tmp_path)}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
