"""A real PKCS#11 token in software (SoftHSM), in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HOW = "`apt install softhsm2` or `make build/softhsm/.unpacked`, and run the same command again"
LABEL, PIN = "issuer", "a-pin-that-nobody-may-see"


def _found(name: str, *folders: str) -> Path:
    there = [path for root in (Path("/"), ROOT / "build/softhsm") for folder in folders for path in (root / folder).glob(name)]
    if not there:
        pytest.skip(f"SoftHSM is not installed: {HOW}")
    return there[0]


def new_token(folder: Path) -> dict[str, str]:
    """Make an initialised token without a key; the environment in which PKCS#11 finds it. The test is skipped where SoftHSM is not installed."""
    library = _found("libsofthsm2.so", "usr/lib/*/softhsm", "usr/lib/softhsm", "usr/lib64/pkcs11")
    utility = _found("softhsm2-util", "usr/bin")
    (folder / "tokens").mkdir(parents=True)
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    environment = {"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PYKCS11LIB": str(library)}
    made = [str(utility), "--module", str(library), "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "12345678"]
    subprocess.run(made, env={**os.environ, **environment}, check=True, capture_output=True)
    return environment


def lose_token(folder: Path) -> None:
    """Take the token out."""
    shutil.rmtree(folder / "tokens")
    (folder / "tokens").mkdir()
