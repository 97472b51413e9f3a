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
    key: Annotated[
        Optional[Path],
        typer.Option("--key", envvar="ERASEDIFF_PUBLIC_KEY", help="The issuer's public key, in PEM: verifies the model and the revocations."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve without a key what nothing verifies.")] = False,
    rules: Annotated[Optional[Path], typer.Option("--rules", help="Serving rules (YAML); reloaded when the file changes.")] = None,
    revocations: Annotated[
        Optional[Path],
        typer.Option("--revocations", envvar="ERASEDIFF_REVOCATIONS", help="The signed list of revocations; reloaded likewise."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "0.0.0.0",  # noqa: S104 - a pod is asked from outside
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 picks a free one.")] = 8080,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Serve a page to try the model at /.")] = True,
    max_images: Annotated[int, typer.Option("--max-images", min=1, max=1024, help="Images per request.")] = 16,
    max_guidance: Annotated[float, typer.Option("--max-guidance", min=0.0, help="The highest guidance scale; the gate tests up to 8.")] = 8.0,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Images per batch.")] = 16,
    max_waiting: Annotated[int, typer.Option("--max-waiting", min=1, help="Images in the queue; further requests get 429.")] = 64,
    deadline: Annotated[float, typer.Option("--deadline", min=0.1, help="Seconds in the queue before a request gets 504.")] = 30.0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of onnxruntime.")] = 1,
    provider: Annotated[str, typer.Option("--provider", help="onnxruntime's provider: 'cpu' or 'cuda'.")] = "cpu",
) -> int:
    """Serve an exported model that passed the gate over the Open Inference Protocol."""
    from erasediff.serve.batches import Capacity
    from erasediff.serve.server import Address, Options, serve_forever

    capacity = Capacity(max_batch, max_waiting, deadline)
    where = Address(host, port)
    serve_forever(Options(model, key, insecure, rules, revocations, where, ui, max_images, max_guidance, capacity, threads, provider))
    return ExitCode.OK
