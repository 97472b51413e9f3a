"""Serve an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.errors import ExitCode


@app.command(rich_help_panel=Group.SERVING)
def serve(
    model: Annotated[str, typer.Option("--model", help="The folder of an exported model that passed, or s3://BUCKET/PREFIX.")],
    rules: Annotated[Optional[Path], typer.Option("--rules", help="What may not be served (YAML); read again when it changes.")] = None,
    revocations: Annotated[
        Optional[Path], typer.Option("--revocations", envvar="ERASEDIFF_REVOCATIONS", help="The signed list of revocations; read again too.")
    ] = None,
    revocation_key: Annotated[
        Optional[Path], typer.Option("--revocation-key", envvar="ERASEDIFF_REVOCATION_KEY", help="The issuer's public key, in PEM.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "0.0.0.0",  # noqa: S104 - a pod is asked from outside
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8080,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Whether / is a page to try the model.")] = True,
    max_images: Annotated[int, typer.Option("--max-images", min=1, max=1024, help="Of one request.")] = 16,
    max_guidance: Annotated[float, typer.Option("--max-guidance", min=0.0, help="The gate has asked at up to 8.")] = 8.0,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Images that are sampled together.")] = 16,
    max_waiting: Annotated[int, typer.Option("--max-waiting", min=1, help="Images that may wait; more are answered with 429.")] = 64,
    deadline: Annotated[float, typer.Option("--deadline", min=0.1, help="Seconds that a request may wait before it is answered with 504.")] = 30.0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of onnxruntime.")] = 1,
    provider: Annotated[str, typer.Option("--provider", help="Of onnxruntime: 'cpu' or 'cuda'.")] = "cpu",
) -> int:
    """Serve an exported model over the Open Inference Protocol; what did not pass the gate is refused."""
    from erasediff.serve.batches import Capacity
    from erasediff.serve.server import Address, Options, serve_forever

    capacity = Capacity(max_batch, max_waiting, deadline)
    where = Address(host, port)
    serve_forever(Options(model, rules, revocations, revocation_key, where, ui, max_images, max_guidance, capacity, threads, provider))
    return ExitCode.OK
