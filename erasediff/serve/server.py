"""The server process: fetch, check and open a model, serve it, and drain at the end."""

from __future__ import annotations

import logging
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from erasediff.envelopes import PublicKey, read_public_key
from erasediff.errors import BadInput
from erasediff.serve.admission import admit
from erasediff.serve.batches import Batcher, Capacity
from erasediff.serve.engine import Engine
from erasediff.serve.fetch import fetch_model
from erasediff.serve.graph import OnnxDecoder, OnnxGraph
from erasediff.serve.guard import ServingGuard
from erasediff.serve.request import Limits
from erasediff.serve.revocations import RulesAndRevocations, open_revocations
from erasediff.serve.rules import RulesFile

log = logging.getLogger("erasediff.serve")
NO_KEY = (
    "no public key is given, so nothing shows that this model passed: set --key to the issuer's signing-key.pub, "
    "or --insecure to serve what is not verified."
)
NOT_VERIFIED = "--insecure: nothing verifies that this model passed the gate, nor that it is the one that did"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
DRAIN_SECONDS = 60
"""After SIGTERM, accepted requests are answered within this time."""


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int


@dataclass(frozen=True)
class Options:
    """The server's options. ``key`` is the issuer's; ``insecure`` says that there is none."""

    model: str
    key: Path | None
    insecure: bool
    rules: Path | None
    revocations: Path | None
    address: Address
    ui: bool
    max_images: int
    max_guidance: float
    capacity: Capacity
    threads: int
    provider: str


def serve_forever(options: Options) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        BadInput: the model may not be served, an option is wrong or missing, or the port is taken.
        IntegrityError: the manifest was changed, or the graph or the table is not the measured one.
    """
    if options.provider not in PROVIDERS:
        raise BadInput(f"--provider {options.provider} is not known: choose one of {', '.join(PROVIDERS)}.")
    try:
        import uvicorn

        from erasediff.serve.app import create_app
        from erasediff.serve.metrics import describe, with_metrics
        from erasediff.serve.predictor import Predictor
    except ImportError as error:
        raise BadInput(
            f"{error.name} is not installed here: use the serving image, or an environment from requirements-serve.lock (docs/serving.md)."
        ) from None
    key = _pinned_key(options)
    rules, revocations = RulesFile(options.rules), open_revocations(options.revocations, key)
    in_force = rules if revocations is None else RulesAndRevocations(rules, revocations)
    # With a list that does not verify, the server starts but is not ready; the list is reloaded when it changes.
    verified = revocations is None or revocations.state().good
    if key is None:
        log.warning(NOT_VERIFIED)
    with fetch_model(options.model, key) as folder:
        admitted = admit(folder, in_force.now() if verified else rules.now(), key)
        how = PROVIDERS[options.provider], options.threads
        graph = OnnxGraph(admitted.graph, *how)
        decoder = None if admitted.decoder is None else OnnxDecoder(admitted.decoder, *how)
    model = admitted.model
    null_row = model.classes if model.null_row else None
    engine = Engine(graph, admitted.table, graph.state_shape, null_row, decoder)
    limits = Limits(options.max_images, options.max_guidance, model.solver, None if model.null_row else model.classes)
    shape = graph.state_shape if decoder is None else decoder.image_shape
    with listening(options.address) as listener:
        batcher = Batcher(with_metrics(engine), options.capacity)
        describe(model, batcher, revocations)
        app = create_app(Predictor(ServingGuard(model, in_force), limits, batcher, shape), options.ui)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS, server_header=False)
        )
        # uvicorn drains, then raises the signal again for the previous handler, which must not make it a failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        host, port = listener.getsockname()[:2]
        print(f"serving {model.dataset} of erasure epoch {model.epoch}, graph {model.onnx.sha256[:12]}, at http://{host}:{port}", flush=True)
        server.run(sockets=[listener])
        batcher.drain()


def _pinned_key(options: Options) -> PublicKey | None:
    """The issuer's public key; ``None`` only where it was asked for.

    Raises:
        BadInput: neither a key nor --insecure is given, or both are; or the key is not valid.
    """
    if options.key is not None:
        if options.insecure:
            raise BadInput("--insecure and a key (--key or ERASEDIFF_PUBLIC_KEY) contradict each other: leave one of them out.")
        return read_public_key(options.key)
    if not options.insecure:
        raise BadInput(NO_KEY)
    return None


def listening(address: Address) -> socket.socket:
    """A listening socket.

    Raises:
        BadInput: the address cannot be used.
    """
    try:
        return socket.create_server((address.host, address.port), backlog=2048, family=socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    except OSError as error:
        raise BadInput(f"{address.host}:{address.port} is not available ({error.strerror}): choose another --host or --port.") from None
