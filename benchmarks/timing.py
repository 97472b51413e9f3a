"""``python -m benchmarks.timing``: seconds of every step of one demo on an empty workdir; run it on an idle machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.demo import COMMAND
from benchmarks.results_file import Row, write_rows
from erasediff.records.nouns import Outcome


def main() -> int:
    """Time the demo."""
    with tempfile.TemporaryDirectory() as name:
        workdir, started = Path(name) / "work", time.monotonic()
        code = subprocess.run([COMMAND, "demo", "--workdir", str(workdir)], check=False).returncode
        total = time.monotonic() - started
        rows: list[Row] = [{"step": step, "seconds": seconds} for step, seconds in Outcome.read(workdir / "outcome.json").seconds.items()]
    write_rows("timing", [*rows, {"step": "whole command", "seconds": round(total, 1)}])
    return code


if __name__ == "__main__":
    sys.exit(main())
