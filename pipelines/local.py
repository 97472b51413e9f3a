"""Run a compiled pipeline on this machine: ``python local.py PIPELINE.yaml ARGUMENTS.json``.

This file and the compiled pipeline are all it takes: the components' code is inside the compiled file. It exits 0 when
the pipeline ended and 1 when a step failed; what came of the run stands in ``outcome.json``.
"""

import fcntl
import json
import os
import sys
import tempfile
from pathlib import Path

from kfp import components, local


def run(pipeline: Path, arguments: dict[str, str]) -> int:
    """Execute a compiled pipeline in subprocesses of this Python."""
    # kfp keeps its own bookkeeping for one pipeline in this folder; nothing of ours goes there.
    with tempfile.TemporaryDirectory(prefix="erasediff-kfp-") as root:
        # A run that is killed leaves the folder; the lock dies with the run, so that a purge knows which folders nobody uses.
        fcntl.flock(os.open(root, os.O_RDONLY), fcntl.LOCK_EX)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
        try:
            components.load_component_from_file(str(pipeline))(**arguments)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())))
