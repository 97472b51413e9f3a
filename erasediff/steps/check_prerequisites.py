"""Check everything that a run needs, and open an attempt with its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erasediff import __version__
from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import lead_of, requests_in
from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import ImageDataset, load_dataset
from erasediff.data.split import partition, split_dataset
from erasediff.data.twins import split_apart
from erasediff.errors import BadInput
from erasediff.evaluate.seeds import secret_key, seed_commitment
from erasediff.records.config import RunConfig
from erasediff.records.core import BaseRecord, ErasureRequest, ModelRecord, PlanRecord, PromotionRecord, requests_of
from erasediff.records.policy import GatePolicy
from erasediff.tracking import CHAMPION, Tracking


def check_prerequisites(
    workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy, name: str | None = None
) -> Attempt:
    """Check what the run needs and open one attempt per request, or resume the attempts that a crash left.

    Args:
        workdir: the run's workdir.
        requests: the classes to forget in this run, all of one dataset, earliest deadline first.
        config: the run's configuration.
        policy: the gate's policy.
        name: the folder name of a single attempt; made from the request's digest if unset.

    Returns:
        The attempt at the first request; its plan names the others.

    Raises:
        BadInput: the dataset, the label, the registry or the remote cannot be used.
    """
    dataset = load_dataset(config.dataset)
    if dataset.name != requests[0].dataset:
        raise BadInput(f"the request names dataset {requests[0].dataset!r} but the config loads {dataset.name!r}: make them agree.")
    if name is not None and len(requests) > 1:
        raise BadInput("a run that erases several classes cannot be named: leave --run out.")
    if policy.tier == 2 and policy.attacks.retrain and config.base_training is None:
        raise BadInput("tier 2 needs a model that is trained without the class, and the config has no base_training: set attacks.retrain to false.")
    tracking = Tracking(workdir.root)
    version = tracking.alias(config.model_name, CHAMPION)
    if (run := _unfinished(workdir, requests, config, policy, name, version)) is not None:
        return workdir.select(run)
    forgotten = _forgotten(version)
    _check_scope(workdir, dataset, requests, config, forgotten)
    _try_judges(config, dataset)
    if version is None and config.base_training is None:
        raise BadInput(f"MLflow has no champion of {config.model_name!r}: run `erasediff train-base` or add base_training to the config.")
    numbers = [len(workdir.attempts_at(request.digest())) + 1 for request in requests]
    names = [name or f"{request.digest()[:16]}-{number}" for request, number in zip(requests, numbers, strict=True)]
    batch = tuple(names) if len(names) > 1 else ()
    opened = [
        _open(workdir, PlannedAttempt(request, number, folder, batch), config, policy, dataset, tracking)
        for request, number, folder in reversed(list(zip(requests, numbers, names, strict=True)))
    ]
    return opened[-1]


@dataclass(frozen=True)
class PlannedAttempt:
    """An attempt that is about to be opened."""

    request: ErasureRequest
    number: int
    name: str
    batch: tuple[str, ...]


def _open(workdir: Workdir, attempt: PlannedAttempt, config: RunConfig, policy: GatePolicy, dataset: ImageDataset, tracking: Tracking) -> Attempt:
    request, key = attempt.request, secret_key()
    title = f"class {request.label} of {request.dataset}, attempt {attempt.number}"
    mlflow_run = tracking.start_run(title, {"erasediff.request": request.digest(), "erasediff.version": __version__})
    plan = PlanRecord(
        made_from={"dataset": dataset.digest()},
        run=attempt.name,
        attempt=attempt.number,
        request=request,
        batch=attempt.batch,
        config_digest=config.digest(),
        policy_digest=policy.digest(),
        seed_commitment=seed_commitment(key),
        mlflow_run_id=mlflow_run,
    )
    tracking.log_params(mlflow_run, _flat(config.shown()) | {"policy": policy.digest(), "label": request.label})
    return workdir.open_attempt(plan, config, policy, key)


def _check_scope(workdir: Workdir, dataset: ImageDataset, requests: Sequence[ErasureRequest], config: RunConfig, forgotten: tuple[int, ...]) -> None:
    for request in requests:
        if request.label >= dataset.classes:
            # Names of classes may name people, and Kubeflow keeps the logs of this step.
            raise BadInput(f"class {request.label} is not in dataset {dataset.name!r}: choose a position from 0 to {dataset.classes - 1}.")
        split_dataset(dataset.labels, request.label, (*forgotten, *(other.label for other in requests if other != request)))
    first, *others = (request.label for request in requests)  # what is retained is the same for all of them
    split_apart(dataset, first, (*forgotten, *others), config.dataset.duplicates, workdir.root)
    partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed)


def _try_judges(config: RunConfig, dataset: ImageDataset) -> None:
    if config.detector.path is None and config.features.path is None:
        return
    import torch  # imported here: most commands do not need it, and it is slow

    from erasediff.steps.judges import TRIED, check_paths

    check_paths(config, dataset.classes, torch.from_numpy(dataset.images[:TRIED]))


def _forgotten(version: object | None) -> tuple[int, ...]:
    tags = getattr(version, "tags", {}) or {}
    return ModelRecord.parse_json(tags["erasediff.model"], "the champion's tag erasediff.model").forgotten if "erasediff.model" in tags else ()


def _unfinished(
    workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy, name: str | None, version: object | None
) -> Attempt | None:
    """An attempt with the same documents that can resume: its base, or its own version, is the champion."""
    runs = workdir.attempts_at(requests[0].digest()) if name is None else _named(workdir, name)
    champion = str(getattr(version, "version", ""))
    for run in reversed(runs):
        plan, base, promotion = run.plan(), run.find(BaseRecord), run.find(PromotionRecord)
        same = set(requests_in(run)) == set(requests) and (plan.config_digest, plan.policy_digest) == (config.digest(), policy.digest())
        current = base is None or base.version == champion or (promotion is not None and promotion.version == champion)
        if same and current:
            return lead_of(run)
    return None


def _named(workdir: Workdir, name: str) -> list[Attempt]:
    return [Attempt(workdir, workdir.runs / name)] if (workdir.runs / name / "plan.json").is_file() else []


def _flat(document: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def parse_documents(request: str, config: str, policy: str) -> tuple[tuple[ErasureRequest, ...], RunConfig, GatePolicy]:
    """Parse the three documents of a run from the pipeline's parameters.

    Raises:
        BadInput: one of them does not follow its schema.
    """
    return (
        requests_of(request),
        RunConfig.parse_json(config, "the config"),
        GatePolicy.parse_json(policy, "the policy"),
    )
