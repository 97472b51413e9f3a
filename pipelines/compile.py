"""Compile the pipelines to ``pipelines/compiled``. The files are committed; a test holds them against this."""

import sys
from pathlib import Path

from kfp import compiler

from pipelines.erasure import erasure_for
from pipelines.tasks import LOCAL, PROFILES, Profile

COMPILED = Path(__file__).parent / "compiled"


def file_name(profile: Profile) -> str:
    """The file of a profile; ``erasure.yaml`` is what ``erasediff run`` executes on this machine."""
    return "erasure.yaml" if profile == LOCAL else f"erasure-{profile.name}.yaml"


def compile_all(folder: Path) -> list[Path]:
    """Write every compiled pipeline to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for profile in (LOCAL, *PROFILES):
        paths.append(folder / file_name(profile))
        compiler.Compiler().compile(erasure_for(profile), str(paths[-1]))
    return paths


if __name__ == "__main__":
    compile_all(Path(sys.argv[1]) if len(sys.argv) > 1 else COMPILED)
