"""A real server in its own environment, on a real graph."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.exported import export_random
from tests.issuer import issuer_public

ROOT = Path(__file__).parent.parent.parent
SERVER = ROOT / ".venv-serve/bin/erasediff"
INFER = "/v2/models/erasediff/infer"


@dataclass(frozen=True)
class Answered:
    """An answer of the server."""

    status: int
    headers: Message
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: subprocess.Popen[str]
    address: str

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answered:
        request = urllib.request.Request(self.address + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as found:
                return Answered(found.status, found.headers, found.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answered(error.code, error.headers, error.read())

    def infer(self, **inputs: Any) -> Answered:
        return self.ask(INFER, json.dumps(question(**inputs)).encode())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def question(**inputs: Any) -> dict[str, Any]:
    """A request with one value an input."""
    types = {int: "INT64", float: "FP32", str: "BYTES"}
    return {"inputs": [{"name": name, "datatype": types[type(value)], "shape": [1], "data": [value]} for name, value in inputs.items()]}


def start(*options: object) -> subprocess.Popen[str]:
    """Start the server on any free port, with the key of the tests' issuer; a later --key wins."""
    return start_bare("--key", issuer_public(), *options)


def start_bare(*options: object) -> subprocess.Popen[str]:
    """Start the server without a key."""
    if not SERVER.exists():
        pytest.fail("the server's environment is missing: run `make .venv-serve/.installed`.")
    command = [str(SERVER), "serve", "--host", "127.0.0.1", "--port", "0", *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/", env=os.environ | {"OMP_NUM_THREADS": "1"})


def refusal(process: subprocess.Popen[str]) -> str:
    """The one sentence of a server that does not start."""
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert errors.count("\n") == 1, "one sentence"
    return errors


def serving(*options: object) -> AbstractContextManager[Running]:
    """A server while it answers."""
    return running(start(*options))


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[Running]:
    """A server while it answers; what it wrote to stderr has no traceback in it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        pytest.fail(f"the server did not start: {process.communicate()}")
    try:
        yield Running(process, found[0])
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, errors


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_unet: Callable[..., torch.nn.Module]) -> Path:
    """A folder as the export step writes it; label 8 is forgotten, the epoch is 1."""
    folder = tmp_path_factory.mktemp("served") / "onnx"
    export_random(folder, tiny_unet, seed=1, epoch=1, forgotten=(8,))
    return folder
