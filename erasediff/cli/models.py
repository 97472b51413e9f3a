"""Sample a model, roll back to an earlier version, print the schema of policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.inputs import open_workdir
from erasediff.cli.options import WORKDIR, SeedOption, WorkdirOption
from erasediff.errors import ExitCode


@app.command(rich_help_panel=Group.MODELS)
def sample(
    model: Annotated[str, typer.Option("--model", help="A model folder, models:/NAME@champion or models:/NAME/VERSION.")],
    label: Annotated[int, typer.Option("--label", min=0, help="The class to sample.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG file to write.")],
    count: Annotated[int, typer.Option("--count", min=1, max=1024, help="How many images, tiled in a square.")] = 1,
    scale: Annotated[int, typer.Option("--scale", min=1, max=64, help="Enlarge every pixel this many times.")] = 1,
    steps: Annotated[Optional[int], typer.Option("--steps", min=1, max=1000, help="Denoiser calls for each image.")] = None,
    seed: SeedOption = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Sample images of a class into a PNG file."""
    from erasediff.steps.sample import sample_to_png

    sample_to_png(model, label, out, count, scale, steps, seed or 0, workdir)
    print(f"wrote {out}")
    return ExitCode.OK


@app.command(rich_help_panel=Group.SERVING)
def rollback(
    name: Annotated[str, typer.Option("--name", help="The registered model's name.")],
    version: Annotated[Optional[str], typer.Option("--version", help="A version; the newest one that may be served if unset.")] = None,
    rules: Annotated[Optional[Path], typer.Option("--rules", help="Serving rules (YAML) in addition to the cluster's.")] = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Roll back to the newest other version that may be served, and make it the champion."""
    from erasediff.steps.rollback import rollback as go_back

    went = go_back(open_workdir(workdir), name, version, rules)
    print(f"champion of {went.name} is now version {went.version} after {went.previous}" + (f" ({went.revision})" if went.revision else ""))
    return ExitCode.OK


@app.command("policy-schema", rich_help_panel=Group.MODELS)
def policy_schema() -> int:
    """Print the JSON schema of a gate policy, for editors and your own checks."""
    import json

    from erasediff.records.policy import GatePolicy

    print(json.dumps(GatePolicy.model_json_schema(), indent=2, sort_keys=True))
    return ExitCode.OK
