"""Build the images on stand-ins for their published bases, without a network."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from components.images import PIPELINE_CPU, SERVE, TRAIN_GPU

ROOT = Path(__file__).parent.parent.parent
STAND_IN = Path(__file__).parent / "stand-in-base"
NAMES = {"serve": SERVE, "pipeline": PIPELINE_CPU, "train": TRAIN_GPU}
DECIDED_BY = {
    "serve": ("requirements-serve.lock", "requirements-build.lock"),
    "pipeline": (
        "requirements.lock",
        "requirements-build.lock",
        "pyproject.toml",
        "images/needed.py",
        "images/pipeline.Containerfile",
        "images/train.Containerfile",
    ),
}


def run(*command: str | Path) -> str:
    """The output of a command that succeeds."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def docker(*arguments: str | Path) -> str:
    return run("docker", *arguments)


def extras_of(containerfile: str) -> list[str]:
    """The extras of the project that an image installs, as its own file names them."""
    said = re.search(r"needed\.py pyproject\.toml ([a-z0-9 ]+?) *>", containerfile)
    assert said, "the Containerfile no longer calls needed.py as `needed.py pyproject.toml EXTRA... >`, where the wheels' extras are read"
    return said[1].split()


def wheelhouse(role: str) -> Path:
    """What an image installs, as wheels that this machine's pip fetched; the build itself has no network."""
    said = [ROOT / name for name in DECIDED_BY[role]]
    folder = ROOT / f"build/wheels/{role}-{hashlib.sha256(b''.join(path.read_bytes() for path in said)).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    part = folder.with_suffix(".part")
    wheel = (sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", part)
    run(*wheel, "--no-deps", "--requirement", "requirements-build.lock")
    if role == "serve":
        run(*wheel, "--no-deps", "--requirement", "requirements-serve.lock")
    else:
        needed = part / "needed.txt"
        both = [extra for one in ("pipeline", "train") for extra in extras_of(Path(ROOT, f"images/{one}.Containerfile").read_text())]
        needed.write_text(run(sys.executable, "images/needed.py", "pyproject.toml", *dict.fromkeys(both)))
        run(*wheel, "--constraint", "requirements.lock", "--requirement", needed)
        kfp = next(line for line in Path(ROOT, "requirements.lock").read_text().splitlines() if line.startswith("kfp=="))
        run(*wheel, "--no-deps", kfp)
    part.rename(folder)
    return folder


def build(role: str) -> str:
    """Build an image under the name that the components know it by, and return that."""
    name, base = NAMES[role], run(STAND_IN, "python")
    build_base = run(STAND_IN, "wheels", wheelhouse("serve" if role == "serve" else "pipeline"))
    arguments = {"BASE": base, "BUILD_BASE": build_base, "TORCH_INDEX": "", "VERSION": name.rpartition(":")[2], "REVISION": "0" * 40}
    given = [part for key, value in arguments.items() if role != "serve" or key != "TORCH_INDEX" for part in ("--build-arg", f"{key}={value}")]
    docker("build", "--network", "none", "--file", f"images/{role}.Containerfile", "--tag", name, *given, ".")
    return name
