"""The lie: 'anyone can check it', of what needs the pipeline, a network, or us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence.conftest import Issued

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "mlflow", "kfp", "dvc", "diffusers", "numpy", "onnx", "onnxruntime", "transformers", "sklearn", "pandas", "kubernetes")

WITHOUT = f"""
import socket, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def unreachable(*_):
    raise RuntimeError("the network was used")

sys.meta_path.insert(0, Missing())
socket.socket.connect = unreachable
from erasediff.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process where nothing heavy can be imported and nothing be reached."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def everything(issued: Issued) -> list[object]:
    signatures = ["--model-signature", issued.run.folder / "weights.model.sig", "--onnx-signature", issued.run.folder / "onnx.model.sig"]
    files = ["--model", issued.model, "--onnx", issued.onnx.parent, "--purge", issued.purge]
    return ["verify", issued.certificate, "--key", issued.key, *files, *signatures, "--final"]


def test_it_verifies_where_nothing_heavy_can_be_imported(issued: Issued) -> None:
    done = without(*everything(issued))
    assert done.returncode == 0, done.stderr
    assert "final certificate" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate",),
        ("regate",),
        ("demo",),
        ("certify",),
        ("sample", "--model", "x", "--label", "1", "--out", "x.png"),
        ("rollback", "--name", "digits"),
    ],
)
def test_control_the_other_commands_say_what_is_missing(issued: Issued, arguments: tuple[str, ...]) -> None:
    done = without(*arguments, "--workdir", issued.run.workdir.root)
    assert done.returncode == 2, done.stderr
    assert "erasediff[cpu]" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="session")
def elsewhere() -> Path:
    """An environment with the extra 'verify' and nothing else, kept in build/ between runs."""
    folder, marker = ROOT / "build/verify-env", ROOT / "build/verify-env/.pyproject.toml"
    wanted = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "requirements.lock").read_bytes()
    if not marker.is_file() or marker.read_bytes() != wanted:
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", "requirements.lock"]
        commands = [
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*pip, "hatchling"],
            [*pip, "--no-build-isolation", "--editable", ".[verify]"],
        ]
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # what lies there counts as installed for pip
        for command in commands:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=alone, check=False)
            if done.returncode:
                pytest.skip(f"the environment cannot be made without a package index: run this where pip has one ({done.stderr.strip()[-200:]})")
        marker.write_bytes(wanted)
    return folder


@pytest.mark.thorough
def test_it_verifies_in_an_environment_of_the_extra_alone(issued: Issued, elsewhere: Path) -> None:
    command, clean = [str(elsewhere / "bin/erasediff"), *map(str, everything(issued))], {"PATH": "/usr/bin:/bin"}
    installed = subprocess.run([str(elsewhere / "bin/python"), "-m", "pip", "list"], capture_output=True, text=True, env=clean, check=True).stdout
    assert not {line.split()[0].lower() for line in installed.splitlines()} & set(HEAVY)
    done = subprocess.run(command, capture_output=True, text=True, env=clean, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    whole = issued.onnx.read_bytes()
    try:
        issued.onnx.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        refused = subprocess.run(command, capture_output=True, text=True, env=clean, cwd="/", check=False)
    finally:
        issued.onnx.write_bytes(whole)
    assert refused.returncode == 2
    assert "is not the certified one" in refused.stderr


@pytest.mark.thorough
def test_the_other_commands_say_there_what_is_missing(elsewhere: Path, tmp_path: Path) -> None:
    clean = {"PATH": "/usr/bin:/bin"}
    for arguments in (
        ["demo"],
        ["run", "--forget-label", "0"],
        ["rollback", "--name", "digits"],
        ["submit", "--forget-label", "0", "--host", "http://127.0.0.1:9"],
    ):
        command = [str(elsewhere / "bin/erasediff"), *arguments] + ([] if arguments[0] == "submit" else ["--workdir", str(tmp_path / "work")])
        done = subprocess.run(command, capture_output=True, text=True, env=clean, cwd="/", check=False)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("erasediff[cpu]") == 1, done.stderr
        assert done.stderr.strip().count("\n") == 0, done.stderr


@pytest.mark.thorough
def test_a_key_can_be_made_and_a_list_issued_there(elsewhere: Path, tmp_path: Path) -> None:
    clean = {"PATH": "/usr/bin:/bin", "ERASEDIFF_SIGNING_KEY": str(tmp_path / "signing-key.pem")}
    for arguments in (["keys", "new", "--to", tmp_path], ["revoke", "--to", tmp_path / "list.json", "--digest", "0" * 64]):
        done = subprocess.run([str(elsewhere / "bin/erasediff"), *map(str, arguments)], capture_output=True, text=True, env=clean, check=False)
        assert done.returncode == 0, done.stderr
