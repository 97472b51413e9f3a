"""Start real erasures quickly: `python nursery.py`, then a line `checkpoint result` on standard input for each.

Every line forks a child that runs the erasure of resumable.py; the child's pid is printed, then its wait status.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    """See the module."""
    spec = importlib.util.spec_from_file_location("resumable", Path(__file__).with_name("resumable.py"))
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    torch.set_num_threads(1)
    program.make_erasure(steps=1).advance()  # the children inherit what torch imports at its first step
    for line in sys.stdin:
        checkpoint, result = map(Path, line.split())
        child = os.fork()
        if child == 0:
            erasure = program.make_erasure(earlier=(1,), steps=12, checkpoint_every=2, batch_size=4)
            save_file(program.everything(program.run(erasure, checkpoint, program.KEY, lambda _: None)), result)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
