#!/usr/bin/python3
"""A stand-in for the serving image, named so: it speaks the same endpoints over the same folder and rules, and draws one grey square.

It knows nothing of the library and needs Debian's Python and no more, so that roll-outs can be tested where the serving image has not been built.
"""

import argparse
import hashlib
import json
import pathlib
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(model, rules):
    """Why rules do not admit a model, or nothing."""
    if model["epoch"] < rules.get("minimum_epoch", 0):
        return f"the model is of erasure epoch {model['epoch']} and {rules['minimum_epoch']} has been promoted."
    if {model["onnx"]["sha256"], model["weights_sha256"]} & set(rules.get("revoked") or ()):
        return "the model has been revoked."
    return None


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--rules", type=pathlib.Path, required=True)
    parser.add_argument("--port", type=int, default=8080)
    asked = parser.parse_args()

    def rules():
        return yaml.safe_load(asked.rules.read_text()) or {}

    try:
        model = json.loads((asked.model / "served.json").read_text())
    except FileNotFoundError:
        exit_with(f"{asked.model} holds no served.json.")
    for pointer in (model["onnx"], model["solvers"]):
        file = asked.model / pathlib.Path(pointer["uri"]).name
        if not file.is_file() or digest(file) != pointer["sha256"]:
            exit_with(f"{file} is not the file that was measured: fetch the model again.")
    if reason := refusal(model, rules()):
        exit_with(reason)

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            reason = refusal(model, rules())
            if self.path == "/v2/health/live":
                self.answer(200, {"live": True})
            elif self.path == "/v2/health/ready":
                self.answer(503 if reason else 200, {"error": reason} if reason else {"ready": True})
            elif self.path == "/served":
                keys = ("dataset", "classes", "forgotten", "epoch", "weights_sha256", "verdict", "solver", "guidance_scale")
                suppressed = list(rules().get("suppress") or ())
                self.answer(200, {key: model[key] for key in keys} | {"onnx_sha256": model["onnx"]["sha256"], "suppressed": suppressed})
            else:
                self.answer(404, {"error": "there is no such path."})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            label = next(entry["data"][0] for entry in body["inputs"] if entry["name"] == "label")
            if reason := refusal(model, rules()):
                self.answer(503, {"error": reason})
            elif label in (rules().get("suppress") or ()):
                self.answer(403, {"error": f"label {label} is suppressed."})
            else:
                self.answer(200, {"outputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [128] * 64}]})

        def log_message(self, *arguments):
            pass

    server = Server(("", asked.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)
    server.server_close()


def exit_with(sentence):
    print(f"erasediff: {sentence}", file=sys.stderr)
    sys.exit(2)


main()
