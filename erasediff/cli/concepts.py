"""Text-to-image: prompts instead of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.inputs import verdict_code, watched
from erasediff.environment import is_main_process
from erasediff.errors import ExitCode


@app.command("erase-concept", rich_help_panel=Group.MODELS)
def erase_concept(
    config: Annotated[Path, typer.Option("--config", help="What to forget, and from which model (YAML); see docs/text-to-image.md.")],
    out: Annotated[Path, typer.Option("--out", help="The new folder; it must not hold anything else.")],
) -> int:
    """Make a Stable Diffusion folder forget prompts. NOT gated: run judge-concept on the result."""
    from erasediff.records.concept import load_concept_config
    from erasediff.steps.erase_concept import erase_concept as erase

    with watched():
        record = erase(load_concept_config(config), out)
    if not is_main_process():
        return ExitCode.OK
    print(f"wrote {out}: erasure {len(record.erasures)} of its model, weights {record.weights_sha256[:12]}")
    print("not gated: whether the prompts are forgotten was not measured yet; run `erasediff judge-concept` before you use the result.")
    return ExitCode.OK


@app.command("judge-concept", rich_help_panel=Group.MODELS)
def judge_concept(
    base: Annotated[Path, typer.Option("--base", help="The Stable Diffusion folder before the erasure.")],
    erased: Annotated[Path, typer.Option("--erased", help="The folder after the erasure.")],
    prompts: Annotated[Path, typer.Option("--prompts", help="The prompts to test (YAML); see docs/text-to-image.md.")],
    detector: Annotated[Path, typer.Option("--detector", help="A CLIPModel folder; nothing is downloaded.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for verdict.json; it must not hold anything else.")],
    policy: Annotated[Path, typer.Option("--policy", help="The gate's policy: a YAML file, or 'text-to-image'.")] = Path("text-to-image"),
    images: Annotated[Optional[Path], typer.Option("--images", help="A few images of the concept, with labels.csv; needed for F5.")] = None,
    device: Annotated[str, typer.Option("--device", help="'auto', 'cpu' or 'cuda'.")] = "auto",
) -> int:
    """Test whether prompts are forgotten and others kept: PASS (0), FAIL (10), INCONCLUSIVE (11)."""
    from erasediff.files import shipped
    from erasediff.steps.judge_concept import ConceptTrial
    from erasediff.steps.judge_concept import judge_concept as judge

    document = shipped("policies/text-to-image.yaml") if str(policy) == "text-to-image" else policy
    with watched():
        verdict = judge(ConceptTrial(base, erased, document, prompts, detector, out, images, device))
    for check in verdict.checks:
        print(f"{check.id}: {check.verdict}, {check.title}" + (f" ({check.reason})" if check.reason else ""))
    print(f"wrote {out / 'verdict.json'}")
    return verdict_code(verdict.verdict)
