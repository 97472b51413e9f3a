"""Run a tiny erasure on two processes, twice: `python joint.py FOLDER`; the second run finds the checkpoint of the first.

The two are forked after the imports and given what torchrun would give them; tests/e2e/test_torchrun.py starts torchrun itself.
Every process writes its own results: `result-RANK`, then `again-RANK`.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path
from types import ModuleType

import torch
from accelerate import PartialState
from safetensors.torch import save_file

SETTINGS: dict[str, object] = {"steps": 12, "batch_size": 8, "checkpoint_every": 4, "accumulation": 2}


def loaded() -> ModuleType:
    """resumable.py, and all that torch imports at a first step, which the two would import once each."""
    spec = importlib.util.spec_from_file_location("resumable", Path(__file__).with_name("resumable.py"))
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    torch.set_num_threads(1)
    program.make_erasure(steps=1).advance()
    PartialState._reset_state()  # this process is none of the two
    return program


def work(program: ModuleType, folder: Path, name: str) -> None:
    """One of the two, from its beginning or from the checkpoint."""
    erasure = program.make_erasure(earlier=(1,), **SETTINGS)
    result = program.run(erasure, folder / "checkpoint", program.KEY, lambda _: None)
    save_file(program.everything(result), folder / f"{name}-{erasure.bench.compute.rank}")


def two(program: ModuleType, folder: Path, name: str) -> None:
    """Fork both and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            try:
                work(program, folder, name)
                torch.distributed.destroy_process_group()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended):
        raise SystemExit("one of the two failed")


def main() -> None:
    """See the module."""
    program = loaded()
    for name in ("result", "again"):
        two(program, Path(sys.argv[1]), name)


if __name__ == "__main__":
    main()
