"""``erasediff …``: one subcommand a step, and ``demo``, ``run``, ``train-base`` and ``sample``.

Nothing heavy is imported before a subcommand needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from erasediff.environment import is_main_process, settle
from erasediff.errors import EraseDiffError, ExitCode

if TYPE_CHECKING:
    from erasediff.records.config import RunConfig
    from erasediff.records.nouns import ErasureRequest, Outcome
    from erasediff.records.policy import GatePolicy
    from erasediff.records.workdir import Run, Workdir


def _exit_with(code: int, **_: object) -> None:
    """Turn what a subcommand returned into the exit status."""
    raise typer.Exit(int(code))


app = typer.Typer(
    result_callback=_exit_with,
    name="erasediff",
    help="Make an image-generating diffusion model forget, and ship it only if a gate says PASS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

WorkdirOption = Annotated[Path, typer.Option("--workdir", help="Folder for runs, models and reports; made if missing.")]
ConfigOption = Annotated[Optional[Path], typer.Option("--config", help="The run's configuration (YAML); the demo's if unset.")]
PolicyOption = Annotated[
    Optional[Path], typer.Option("--policy", help="The gate's policy: a YAML file, 'class-conditional' (if unset) or 'class-conditional-strict'.")
]
TierOption = Annotated[Optional[int], typer.Option("--tier", min=1, max=2, help="2: the gate asks for the attacks too; the policy's if unset.")]
RunOption = Annotated[Optional[str], typer.Option("--run", help="Name of the attempt; the one opened last if unset.")]
ProfileOption = Annotated[str, typer.Option("--profile", help="The kind of cluster: 'cpu', 'gpu' or 'gpu-multi' (needs Kubeflow Trainer).")]
HostOption = Annotated[Optional[str], typer.Option("--host", help="Address of Kubeflow Pipelines; ERASEDIFF_KFP_HOST or KFP_HOST if unset.")]
NamespaceOption = Annotated[Optional[str], typer.Option("--namespace", help="Your namespace, where Kubeflow serves several users.")]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="Kubeflow's folder for runs; made if missing.")]
ServiceAccountOption = Annotated[Optional[str], typer.Option("--service-account", help="Of the pods; Kubeflow's own if unset.")]
NumberOption = Annotated[
    Optional[int], typer.Option("--label-number", min=0, help="The class by its position, where the dataset is on the cluster and not here.")
]
LabelOption = Annotated[str, typer.Option("--forget-label", help="The class to forget: its name or its number.")]
SeedOption = Annotated[Optional[int], typer.Option("--seed", min=0, help="Seed of all randomness.")]

WORKDIR = Path("erasediff-work")
SHIPPED_POLICIES = ("class-conditional", "class-conditional-strict")


def _version(value: bool) -> None:
    if value:
        from erasediff import __version__

        print(f"erasediff {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Make an image-generating diffusion model forget, and ship it only if a gate says PASS."""


@app.command()
def demo(workdir: WorkdirOption = WORKDIR, forget_label: LabelOption = "0", seed: SeedOption = None, tier: TierOption = None) -> int:
    """Erase a digit from a model of handwritten digits: train once, then request to champion through the pipeline."""
    config = _config(None, seed)
    public = config.report.model_copy(update={"show_forgotten": True})  # the digits are public data
    return _run(workdir, config.model_copy(update={"report": public}), _policy(None, tier), forget_label)


@app.command()
def run(
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    policy: PolicyOption = None,
    dataset: Annotated[Optional[str], typer.Option("--dataset", help="'digits', or KIND:PATH with KIND folder, shards or idx.")] = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    tier: TierOption = None,
) -> int:
    """Run the erasure pipeline on a dataset of your own."""
    configured = _config(config, seed)
    if dataset is not None:
        configured = configured.model_copy(update=_dataset(dataset, configured))
    return _run(workdir, configured, _policy(policy, tier), forget_label)


@app.command()
def submit(
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    label_number: NumberOption = None,
    policy: PolicyOption = None,
    seed: SeedOption = None,
    tier: TierOption = None,
    profile: ProfileOption = "gpu",
    host: HostOption = None,
    namespace: NamespaceOption = None,
    experiment: ExperimentOption = "erasediff",
    service_account: ServiceAccountOption = None,
) -> int:
    """Run the pipeline on Kubeflow Pipelines; the token is in ERASEDIFF_KFP_TOKEN."""
    from erasediff.submit import backend, request_for, submission
    from erasediff.submit import submit as hand_in

    where, configured = backend(host, namespace, experiment, service_account), _config(config, seed)
    asked = submission(where, profile, request_for(configured, forget_label, label_number), configured, _policy(policy, tier))
    done = hand_in(asked)
    print(f"run {done.run_id} of {asked.pipeline}, version {asked.version}{' (uploaded)' if done.uploaded else ''}: {asked.name}")
    return ExitCode.OK


@app.command()
def schedule(
    cron: Annotated[str, typer.Option("--cron", help="When: six fields, seconds first, such as '0 0 3 * * *'.")],
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    label_number: NumberOption = None,
    policy: PolicyOption = None,
    seed: SeedOption = None,
    tier: TierOption = None,
    profile: ProfileOption = "gpu",
    host: HostOption = None,
    namespace: NamespaceOption = None,
    experiment: ExperimentOption = "erasediff",
    service_account: ServiceAccountOption = None,
) -> int:
    """Run the pipeline on Kubeflow Pipelines again and again, one run at a time; a schedule of the same class is replaced."""
    from erasediff.submit import backend, request_for, submission
    from erasediff.submit import schedule as hand_in

    where, configured = backend(host, namespace, experiment, service_account), _config(config, seed)
    asked = submission(where, profile, request_for(configured, forget_label, label_number), configured, _policy(policy, tier), cron)
    done = hand_in(asked)
    print(f"schedule {done.schedule_id} is {done.change}: {asked.name}, {asked.cron}, with {asked.pipeline} {asked.version}")
    return ExitCode.OK


@app.command("policy-schema")
def policy_schema() -> int:
    """Print the JSON schema of a gate policy, for editors and for checks of your own."""
    import json

    from erasediff.records.policy import GatePolicy

    print(json.dumps(GatePolicy.model_json_schema(), indent=2, sort_keys=True))
    return ExitCode.OK


@app.command("train-base")
def train_base(config: ConfigOption = None, workdir: WorkdirOption = WORKDIR, seed: SeedOption = None, run: RunOption = None) -> int:
    """Train a base model and register it as champion, if the registry has none; with --run, pin it for that attempt."""
    if run is not None:
        return _step("train_base", workdir, run)
    from erasediff.steps.train_base import ensure_champion

    base = ensure_champion(_workdir(workdir), _config(config, seed))
    print(f"champion of {base.name} is version {base.version}, weights {base.model.weights.sha256[:12]}")
    return ExitCode.OK


@app.command("check-prerequisites")
def check_prerequisites(
    config: ConfigOption = None,
    forget_label: LabelOption = "0",
    policy: PolicyOption = None,
    workdir: WorkdirOption = WORKDIR,
    seed: SeedOption = None,
    run: RunOption = None,
    tier: TierOption = None,
) -> int:
    """Check everything a run needs and open an attempt."""
    from erasediff.steps.runner import open_attempt

    configured, demanded = _config(config, seed), _policy(policy, tier)
    request = _request(configured, forget_label)
    documents = [document.canonical().decode() for document in (request, configured, demanded)]
    opened = open_attempt(_workdir(workdir), documents[0], documents[1], documents[2], run)
    print(f"attempt {opened.name} is open")
    return ExitCode.OK


@app.command("version-forget-set")
def version_forget_set(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Split the dataset, version the forget set with DVC and push it."""
    return _step("version_forget_set", workdir, run)


@app.command()
def erase(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Make the base forget; goes on from the last checkpoint."""
    return _step("erase", workdir, run)


@app.command()
def evaluate(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Sample base and erased model and measure what the policy asks about."""
    return _step("evaluate", workdir, run)


@app.command()
def gate(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Decide PASS (0), FAIL (10) or INCONCLUSIVE (11)."""
    code = _step("gate", workdir, run)
    if code:
        return code
    from erasediff.records.nouns import VerdictRecord

    return _verdict_code(str(_workdir(workdir).run(run).need(VerdictRecord, "gate").verdict))


@app.command("export-onnx")
def export_onnx(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Export the erased model to ONNX and measure the graph: PASS (0), FAIL (10) or INCONCLUSIVE (11)."""
    code = _step("export_onnx", workdir, run)
    if code:
        return code
    from erasediff.records.nouns import ExportedRecord

    return _verdict_code(str(_workdir(workdir).run(run).need(ExportedRecord, "export-onnx").verdict))


@app.command()
def register(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Register the model that passed in MLflow as challenger."""
    return _step("register", workdir, run)


@app.command("roll-out")
def roll_out(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Bring the exported model up beside the champion, where ERASEDIFF_ROLL_OUT_BACKEND says how; it serves, or is rolled back (12)."""
    return _step("roll_out", workdir, run)


@app.command()
def rollback(
    model: Annotated[str, typer.Option("--model", help="The registered model's name.")] = "digits",
    version: Annotated[Optional[str], typer.Option("--version", help="A version; the newest that may be served if unset.")] = None,
    rules: Annotated[Optional[Path], typer.Option("--rules", help="Rules (YAML) beside those of the cluster.")] = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Roll out the newest other version that passed, is not revoked and knows nothing forgotten since; make it the champion."""
    from erasediff.steps.rollback import rollback as go_back

    went = go_back(_workdir(workdir), model, version, rules)
    print(f"champion of {went.name} is now version {went.version} after {went.previous}" + (f" ({went.revision})" if went.revision else ""))
    return ExitCode.OK


@app.command()
def promote(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Make the challenger the champion."""
    return _step("promote", workdir, run)


@app.command("record-outcome")
def record_outcome(workdir: WorkdirOption = WORKDIR, run: RunOption = None) -> int:
    """Write outcome.json and report.html of an attempt."""
    from erasediff.steps.record_outcome import record_outcome as record

    _print_outcome(record(_workdir(workdir).run(run)), workdir)
    return ExitCode.OK


@app.command()
def sample(
    model: Annotated[str, typer.Option("--model", help="A model folder, models:/NAME@champion or models:/NAME/VERSION.")],
    label: Annotated[int, typer.Option("--label", min=0, help="The class to sample.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG file to write.")],
    count: Annotated[int, typer.Option("--count", min=1, max=1024, help="How many images, side by side in a square.")] = 1,
    scale: Annotated[int, typer.Option("--scale", min=1, max=64, help="Enlarge every pixel this many times.")] = 1,
    steps: Annotated[Optional[int], typer.Option("--steps", min=1, max=1000, help="Denoiser calls an image.")] = None,
    seed: SeedOption = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Sample images of a class into a PNG file."""
    from erasediff.steps.sample import sample_to_png

    sample_to_png(model, label, out, count, scale, steps, seed or 0, workdir)
    print(f"wrote {out}")
    return ExitCode.OK


@app.command("erase-concept")
def erase_concept(
    config: Annotated[Path, typer.Option("--config", help="What to forget, and from which model (YAML); see docs/text-to-image.md.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; nothing else may be there.")],
) -> int:
    """Make a Stable Diffusion folder forget prompts. NOT gated: nothing is measured here, judge-concept does that."""
    from erasediff.records.concept import load_concept_config
    from erasediff.steps.erase_concept import erase_concept as erase

    record = erase(load_concept_config(config), out)
    if not is_main_process():
        return ExitCode.OK
    print(f"wrote {out}: erasure {len(record.erasures)} of its model, weights {record.weights_sha256[:12]}")
    print("not gated: whether the prompts are forgotten was not measured; run `erasediff judge-concept` before you use the result.")
    return ExitCode.OK


@app.command("judge-concept")
def judge_concept(
    base: Annotated[Path, typer.Option("--base", help="The Stable Diffusion folder before the erasure.")],
    erased: Annotated[Path, typer.Option("--erased", help="What erase-concept, or something else, made of it.")],
    prompts: Annotated[Path, typer.Option("--prompts", help="What to ask for (YAML); see docs/text-to-image.md.")],
    detector: Annotated[Path, typer.Option("--detector", help="A CLIPModel folder; nothing is downloaded.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for verdict.json; nothing else may be there.")],
    policy: Annotated[Path, typer.Option("--policy", help="The gate's policy: a YAML file, or 'text-to-image'.")] = Path("text-to-image"),
    images: Annotated[Optional[Path], typer.Option("--images", help="A few images of the concept, with labels.csv: measures F5.")] = None,
    device: Annotated[str, typer.Option("--device", help="'auto', 'cpu' or 'cuda'.")] = "auto",
) -> int:
    """Measure whether prompts are forgotten and others kept: PASS (0), FAIL (10) or INCONCLUSIVE (11)."""
    from erasediff.launch import shipped
    from erasediff.steps.judge_concept import Trial
    from erasediff.steps.judge_concept import judge_concept as judge

    document = shipped("policies/text-to-image.yaml") if str(policy) == "text-to-image" else policy
    verdict = judge(Trial(base, erased, document, prompts, detector, out, images, device))
    for check in verdict.checks:
        print(f"{check.id}: {check.verdict}, {check.title}" + (f" ({check.reason})" if check.reason else ""))
    print(f"wrote {out / 'verdict.json'}")
    return _verdict_code(str(verdict.verdict))


def _workdir(path: Path) -> Workdir:
    from erasediff.records.workdir import Workdir

    return Workdir.open(path)


def _config(path: Path | None, seed: int | None) -> RunConfig:
    from erasediff.records.config import RunConfig, load_config

    config = RunConfig() if path is None else load_config(path)
    return config if seed is None else RunConfig.parse(config.model_dump() | {"seed": seed}, "--seed")


def _policy(path: Path | None, tier: int | None) -> GatePolicy:
    from erasediff.launch import shipped
    from erasediff.records.policy import load_policy

    name = "class-conditional" if path is None else str(path)
    policy = load_policy(shipped(f"policies/{name}.yaml") if name in SHIPPED_POLICIES else Path(name))
    return policy if tier is None else policy.model_copy(update={"tier": tier})


def _dataset(text: str, config: RunConfig) -> dict[str, object]:
    from erasediff.records.config import DatasetConfig

    kind, separator, path = text.partition(":")
    if not separator:
        fields: dict[str, object] = {"name": kind, "kind": kind}
    else:
        name = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(path).resolve().name)
        fields = {"kind": kind, "path": str(Path(path).resolve()), "name": name}
        if config.dataset.kind == kind:
            fields = config.dataset.model_dump() | {"path": fields["path"]}
    parsed = DatasetConfig.parse(fields, "--dataset")
    return {"dataset": parsed, "model_name": config.model_name if config.dataset.name == parsed.name else parsed.name}


def _request(config: RunConfig, label: str) -> ErasureRequest:
    from erasediff.data.datasets import load_dataset
    from erasediff.records.nouns import ErasureRequest

    dataset = load_dataset(config.dataset)
    return ErasureRequest(dataset=dataset.name, label=dataset.label_index(label))


def _run(path: Path, config: RunConfig, policy: GatePolicy, label: str) -> int:
    from erasediff.launch import exit_code, run_pipeline

    workdir = _workdir(path)
    outcome = run_pipeline(workdir, _request(config, label), config, policy)
    _print_outcome(outcome, path)
    return exit_code(outcome)


def _step(step: str, path: Path, run: str | None) -> int:
    from erasediff.steps.runner import perform

    attempt: Run = _workdir(path).run(run)
    record = perform(step, attempt)
    if is_main_process():
        print(f"{step}: {attempt.path(type(record))}")
    return ExitCode.OK


def _verdict_code(verdict: str) -> int:
    print(verdict)
    return {"PASS": ExitCode.OK, "FAIL": ExitCode.GATE_FAIL}.get(verdict, ExitCode.GATE_INCONCLUSIVE)


def _print_outcome(outcome: Outcome, workdir: Path) -> None:
    if outcome.error is not None:
        print(f"erasediff {outcome.error.step}: {outcome.error.message}", file=sys.stderr)
    if outcome.verdict is not None:
        forget = outcome.forget
        upper = "not measured" if forget.upper is None else f"upper bound {forget.upper:.2%}"
        print(f"{outcome.verdict}: {forget.detections} of {forget.n} samples of the forgotten class were detected ({upper})")
    if outcome.champion is not None:
        print(f"champion of {outcome.champion.name} is now version {outcome.champion.version}")
    if outcome.report is not None:
        print(f"report: {workdir / outcome.report}")


def _write_traceback() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="erasediff-", suffix=".log", delete=False) as handle:
        handle.write(traceback.format_exc())
    return Path(handle.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; see :class:`erasediff.errors.ExitCode`."""
    settle()
    try:
        app(args=arguments, prog_name="erasediff")
        return ExitCode.OK
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.UNEXPECTED
    except EraseDiffError as error:
        print(f"erasediff: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # the one place where anything unexpected becomes a sentence; the traceback is kept
        print(f"erasediff: {type(error).__name__} was not expected; the traceback is in {_write_traceback()}.", file=sys.stderr)
        return ExitCode.UNEXPECTED
