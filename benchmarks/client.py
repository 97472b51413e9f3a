"""A server in a process of its own, and clients that keep their connections."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Client:
    """Asks one server."""

    process: subprocess.Popen[str]
    host: str
    port: int
    _local: threading.local = field(default_factory=threading.local)

    def ask(self, label: int, seed: int) -> tuple[int, float]:
        """Status and seconds of one request for one image."""
        given = (("label", "BYTES", str(label)), ("seed", "INT64", seed))  # the digits' classes are called by their numbers
        inputs = [{"name": name, "datatype": datatype, "shape": [1], "data": [value]} for name, datatype, value in given]
        body, started = json.dumps({"inputs": inputs}), time.perf_counter()
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        self._local.connection.request("POST", "/v2/models/erasediff/infer", body)
        answer = self._local.connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - started

    def many(self, clients: int, each: int, label: int) -> list[float]:
        """Seconds of requests by so many clients at once, each with the next as soon as one is answered."""

        def one(first: int) -> list[float]:
            found = [self.ask(label, first * each + i) for i in range(each)]
            if any(status != 200 for status, _ in found):
                raise SystemExit(f"the server refused: {[status for status, _ in found]}")
            return [seconds for _, seconds in found]

        with ThreadPoolExecutor(clients) as pool:
            return [seconds for found in pool.map(one, range(clients)) for seconds in found]

    def rss_mb(self) -> float:
        """Resident memory of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def serving(root: Path, model: Path, *options: object) -> Iterator[Client]:
    """A server on any free port; the issuer's public key lies beside the model."""
    command = root / ".venv-serve/bin/erasediff"
    if not command.exists():
        raise SystemExit("the server's environment is missing: run `make .venv-serve/.installed`.")
    pinned = ("--model", model, "--key", model / "signing-key.pub")
    arguments = [str(part) for part in (command, "serve", "--host", "127.0.0.1", "--port", 0, *pinned, *options)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends with this process
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert process.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start.")
        yield Client(process, found[1], int(found[2]))
    finally:
        process.terminate()
        process.wait(60)
