"""``python -m benchmarks.timing WORKDIR``: seconds of every step of one demo on an empty workdir; run it on an idle machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.demo import COMMAND
from benchmarks.results_file import Row, write_rows
from erasediff.records.core import Outcome
from erasediff.steps.table import STEPS


def main() -> int:
    """Time the demo."""
    workdir, started = Path(sys.argv[1]), time.monotonic()
    if workdir.exists():
        sys.exit(f"{workdir} exists: name an empty place, for a base that is there would not be trained again")
    code = subprocess.run([COMMAND, "demo", "--workdir", str(workdir)], check=False).returncode
    total = time.monotonic() - started
    seconds = Outcome.read(workdir / "outcome.json").seconds
    rows: list[Row] = [{"step": step, "seconds": seconds[step]} for row in STEPS if (step := row.name) in seconds]
    write_rows("timing", [*rows, {"step": "whole command", "seconds": round(total, 1)}])
    return code


if __name__ == "__main__":
    sys.exit(main())
