"""A server that answers as one of a candidate would."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from erasediff.records.serving import ServingRules
from erasediff.rollout.backend import Candidate

RULES = ServingRules(suppress=("3", "99"))


class FakeServer:
    """Answers as a server of a candidate would; each answer can be replaced. The real server is asked in tests/cluster."""

    def __init__(self, candidate: Candidate) -> None:
        model = candidate.model
        self.served: Any = {
            "onnx_sha256": model.onnx.sha256,
            "weights_sha256": model.weights_sha256,
            "epoch": model.epoch,
            "verdict": "PASS",
            "class_names": list(model.class_names),
            "forgotten": list(model.forgotten),
            "suppressed": ["3"],
        }
        self.images: Any = {"outputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [0, 1, 2, 255]}]}
        self.status: Callable[[str], int] = lambda label: 403 if label in RULES.suppress else 200
        self.asked: list[str] = []
        self.address = ""

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        label = next(entry["data"][0] for entry in body["inputs"] if entry["name"] == "label")
        self.asked.append(label)
        status = self.status(label)
        return status, self.images if status == 200 else {"error": f"label {label} is not given.\n"}


@contextmanager
def answering(candidate: Candidate, host: str = "127.0.0.1", port: int = 0) -> Iterator[FakeServer]:
    """A fake server on this machine, on a free port unless one is named."""
    fake = FakeServer(candidate)

    class Handler(BaseHTTPRequestHandler):
        def send(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.send(200 if self.path == "/served" else 404, fake.served)

        def do_POST(self) -> None:
            self.send(*fake.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    fake.address = f"http://{host}:{http.server_port}"
    yield fake
    http.shutdown()
    http.server_close()
