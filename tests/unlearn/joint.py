"""Run a tiny erasure as one of torchrun's processes: `torchrun … joint.py FOLDER`; every process writes its own result."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

SETTINGS: dict[str, object] = {"steps": 12, "batch_size": 8, "checkpoint_every": 4, "accumulation": 2}


def main() -> None:
    """See the module."""
    spec = importlib.util.spec_from_file_location("resumable", Path(__file__).with_name("resumable.py"))
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    erasure = program.make_erasure(earlier=(1,), **SETTINGS | json.loads(sys.argv[2]))
    result = program.run(erasure, folder / "checkpoint", program.KEY, lambda _: None)
    save_file(program.everything(result), folder / f"result-{erasure.bench.compute.rank}")


if __name__ == "__main__":
    main()
