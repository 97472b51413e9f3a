"""Compile the pipelines to ``pipelines/compiled``. The files are committed; a test compares them with this module's output."""

import sys
from pathlib import Path

from kfp import compiler

from pipelines.erasure import erasure_for
from pipelines.tasks import LOCAL, PROFILES, Profile

COMPILED = Path(__file__).parent / "compiled"


def file_name(profile: Profile) -> str:
    """The file of a profile; ``erasure.yaml`` is what ``--runner kubeflow-local`` executes on this machine."""
    return "erasure.yaml" if profile == LOCAL else f"erasure-{profile.name}.yaml"


def write(path: Path, profile: Profile) -> None:
    """Write the compiled pipeline of a profile."""
    compiler.Compiler().compile(erasure_for(profile), str(path))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else COMPILED
    folder.mkdir(parents=True, exist_ok=True)
    for profile in (LOCAL, *PROFILES):
        write(folder / file_name(profile), profile)
