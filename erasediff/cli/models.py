"""Import and sample a model, roll back to an earlier version, print the schema of policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.inputs import open_workdir, read_classes, read_config, read_policy, watched
from erasediff.cli.options import WORKDIR, ClassesOption, ConfigOption, DatasetOption, PolicyOption, ResizeOption, SeedOption, WorkdirOption
from erasediff.errors import ExitCode


@app.command(rich_help_panel=Group.MODELS)
def sample(
    model: Annotated[str, typer.Option("--model", help="A model folder, models:/NAME@champion or models:/NAME/VERSION.")],
    label: Annotated[str, typer.Option("--label", help="The name of the class to sample; its position if a model folder has no names.")],
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


@app.command("import-base", rich_help_panel=Group.MODELS)
def import_base(
    folder: Annotated[Path, typer.Argument(help="A diffusers folder with a class-conditional UNet2DModel or a DiT, or a .safetensors file.")],
    config: ConfigOption = None,
    dataset: DatasetOption = None,
    resize: ResizeOption = None,
    policy: PolicyOption = None,
    classes: ClassesOption = None,
    sheet: Annotated[Optional[Path], typer.Option("--sheet", help="A PNG file for a few samples of every class.")] = None,
    seed: SeedOption = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Register a model that was trained elsewhere as the base, if it makes the classes of its dataset."""
    from erasediff.records.names import shown_names
    from erasediff.steps.import_base import import_base as bring_in

    asked = read_config(config, seed, dataset, resize)
    with watched():
        imported = bring_in(open_workdir(workdir), folder, asked, read_policy(policy, None), sheet, read_classes(classes))
    for note in imported.notes:
        print(f"note: {note}")
    for name, share in imported.made.items():
        print(f"class {shown_names([name])}: {share:.0%} of its samples are recognised")
    print(f"champion of {imported.name} is version {imported.version}, weights {imported.weights_sha256[:12]}")
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
