"""Compile the pipelines to ``pipelines/compiled``. The files are committed; a test holds them against this."""

import sys
from pathlib import Path

from kfp import compiler

from pipelines.erasure import erasure

COMPILED = Path(__file__).parent / "compiled"


def compile_all(folder: Path) -> list[Path]:
    """Write every compiled pipeline to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "erasure.yaml"
    compiler.Compiler().compile(erasure, str(path))
    return [path]


if __name__ == "__main__":
    compile_all(Path(sys.argv[1]) if len(sys.argv) > 1 else COMPILED)
