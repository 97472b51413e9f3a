"""Open an attempt: everything that can be wrong before the work starts is found here, and the plan is written down."""

from __future__ import annotations

import numpy as np

from erasediff import __version__
from erasediff.data.datasets import ImageDataset, load_dataset
from erasediff.data.partition import partition
from erasediff.data.split import split_dataset
from erasediff.errors import BadInput
from erasediff.evaluate.seeds import secret_key, seed_commitment
from erasediff.records.config import RunConfig
from erasediff.records.nouns import BaseRecord, ErasureRequest, ModelRecord, PlanRecord, PromotionRecord
from erasediff.records.policy import GatePolicy
from erasediff.records.workdir import Run, Workdir
from erasediff.tracking import CHAMPION, Tracking


def check_prerequisites(workdir: Workdir, request: ErasureRequest, config: RunConfig, policy: GatePolicy, name: str | None = None) -> Run:
    """Check what the run needs and open an attempt, or take up the one that a crash left.

    Args:
        workdir: where the run is kept.
        request: what is to be forgotten.
        config: how.
        policy: what the gate will ask.
        name: a name for the attempt's folder; made from the request's digest if unset.

    Raises:
        BadInput: the dataset, the label, the registry or the remote cannot be used.
    """
    dataset = load_dataset(config.dataset)
    if dataset.name != request.dataset:
        raise BadInput(f"the request names dataset {request.dataset!r} but the config loads {dataset.name!r}: make them agree.")
    if policy.tier == 2 and policy.attacks.retrain and config.base_training is None:
        raise BadInput("tier 2 compares with a model that is trained without the class, and the config trains none: set attacks.retrain to false.")
    tracking = Tracking(workdir.root)
    version = tracking.alias(config.model_name, CHAMPION)
    if (run := _unfinished(workdir, request, config, policy, name, version)) is not None:
        return workdir.select(run)
    forgotten = _forgotten(version)
    _check_scope(dataset, request, config, forgotten)
    _try_judges(config, dataset)
    if version is None and config.base_training is None:
        raise BadInput(f"MLflow has no champion of {config.model_name!r}: run `erasediff train-base` or add base_training to the config.")
    number = len(workdir.attempts(request.digest())) + 1
    folder = name or f"{request.digest()[:16]}-{number}"
    mlflow_run = tracking.start_run(f"erase {folder}", {"erasediff.request": request.digest(), "erasediff.version": __version__})
    key = secret_key()
    plan = PlanRecord(
        made_from={"dataset": dataset.digest()},
        run=folder,
        attempt=number,
        request=request,
        config_digest=config.digest(),
        policy_digest=policy.digest(),
        seed_commitment=seed_commitment(key),
        mlflow_run_id=mlflow_run,
    )
    tracking.log_params(mlflow_run, _flat(config.shown()) | {"policy": policy.digest(), "label": request.label})
    return workdir.open_run(plan, config, policy, key)


def _check_scope(dataset: ImageDataset, request: ErasureRequest, config: RunConfig, forgotten: tuple[int, ...]) -> None:
    if request.label >= dataset.classes:
        known = ", ".join(dataset.class_names[:20])
        raise BadInput(f"class {request.label} is not in dataset {dataset.name!r}: choose one of {known}.")
    split_dataset(dataset.labels, request.label, forgotten)
    partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed)


def _try_judges(config: RunConfig, dataset: ImageDataset) -> None:
    import torch  # only here: an attempt that is taken up needs none of it

    from erasediff.steps.judges import TRIED, check_paths

    check_paths(config, dataset.classes, torch.from_numpy(np.array(dataset.images[:TRIED])))


def _forgotten(version: object | None) -> tuple[int, ...]:
    tags = getattr(version, "tags", {}) or {}
    return ModelRecord.parse_json(tags["erasediff.model"], "the champion's tag erasediff.model").forgotten if "erasediff.model" in tags else ()


def _unfinished(
    workdir: Workdir, request: ErasureRequest, config: RunConfig, policy: GatePolicy, name: str | None, version: object | None
) -> Run | None:
    """An attempt with the same documents that may go on: its base is still the champion, or it has become it itself."""
    runs = workdir.attempts(request.digest()) if name is None else _named(workdir, name)
    champion = str(getattr(version, "version", ""))
    for run in reversed(runs):
        plan, base, promotion = run.plan(), run.find(BaseRecord), run.find(PromotionRecord)
        same = plan.request == request and (plan.config_digest, plan.policy_digest) == (config.digest(), policy.digest())
        current = base is None or base.version == champion or (promotion is not None and promotion.version == champion)
        if same and current:
            return run
    return None


def _named(workdir: Workdir, name: str) -> list[Run]:
    return [Run(workdir, workdir.runs / name)] if (workdir.runs / name / "plan.json").is_file() else []


def _flat(document: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def parse_documents(request: str, config: str, policy: str) -> tuple[ErasureRequest, RunConfig, GatePolicy]:
    """The three documents of a run from their JSON, as pipeline parameters carry them.

    Raises:
        BadInput: one of them does not follow its schema.
    """
    return (
        ErasureRequest.parse_json(request, "the request"),
        RunConfig.parse_json(config, "the config"),
        GatePolicy.parse_json(policy, "the policy"),
    )
