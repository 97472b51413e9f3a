"""Check everything that a run needs, and open an attempt with its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from erasediff import __version__
from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import lead_of, requests_in
from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import ImageDataset, load_dataset
from erasediff.data.split import partition, split_dataset
from erasediff.data.twins import split_apart
from erasediff.errors import BadInput
from erasediff.evaluate.seeds import secret_key, seed_commitment
from erasediff.evidence.signing import check_can_sign
from erasediff.records.config import RunConfig
from erasediff.records.core import BaseRecord, ErasureRequest, PlanRecord, PromotionRecord
from erasediff.records.policy import GatePolicy
from erasediff.records.positions import PositionedRequest, positioned_requests, told
from erasediff.records.settings import SigningSettings
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
        BadInput: no key can sign what is exported, or the dataset, a class, the registry or the remote cannot be used.
    """
    dataset = load_dataset(config.dataset)
    if dataset.name != requests[0].dataset:
        raise BadInput(f"the request names dataset {requests[0].dataset!r} but the config loads {dataset.name!r}: make them agree.")
    if name is not None and len(requests) > 1:
        raise BadInput("a run that erases several classes cannot be named: leave --run out.")
    if policy.tier == 2 and policy.attacks.retrain and config.base_training is None:
        raise BadInput("tier 2 needs a model that is trained without the class, and the config has no base_training: set attacks.retrain to false.")
    check_can_sign(SigningSettings.load(), datetime.now(UTC))
    tracking = Tracking(workdir.root)
    version = tracking.alias(config.model_name, CHAMPION)
    if (run := _unfinished(workdir, requests, config, policy, name, version)) is not None:
        return workdir.select(run)
    model = None if version is None else tracking.recorded_model(version)
    if model is not None:
        dataset = dataset.in_order_of(model)
    _check_scope(workdir, dataset, requests, config, () if model is None else model.forgotten)
    _try_judges(config, dataset)
    if version is None and config.base_training is None:
        raise BadInput(f"MLflow has no champion of {config.model_name!r}: run `erasediff import-base` or `train-base`, or add base_training.")
    numbers = [len(workdir.attempts_at(request.digest())) + 1 for request in requests]
    asked = [PositionedRequest.of(request, dataset.class_names) for request in requests]
    names = [name or f"{one.digest()[:16]}-{number}" for one, number in zip(asked, numbers, strict=True)]
    batch = tuple(names) if len(names) > 1 else ()
    opened = [
        _open(workdir, PlannedAttempt(request, one, number, folder, batch), config, policy, dataset, tracking)
        for request, one, number, folder in reversed(list(zip(requests, asked, numbers, names, strict=True)))
    ]
    return opened[-1]


@dataclass(frozen=True)
class PlannedAttempt:
    """An attempt that is about to be opened."""

    request: ErasureRequest
    asked: PositionedRequest
    number: int
    name: str
    batch: tuple[str, ...]


def _open(workdir: Workdir, attempt: PlannedAttempt, config: RunConfig, policy: GatePolicy, dataset: ImageDataset, tracking: Tracking) -> Attempt:
    request, asked, key = attempt.request, attempt.asked, secret_key()
    title = f"{told([asked.position], request.dataset)}, attempt {attempt.number}"
    mlflow_run = tracking.start_run(title, {"erasediff.request": asked.digest(), "erasediff.version": __version__})
    plan = PlanRecord(
        made_from={"dataset": dataset.digest()},
        run=attempt.name,
        attempt=attempt.number,
        request=request,
        position=asked.position,
        request_id=asked.digest(),
        batch=attempt.batch,
        config_digest=config.digest(),
        policy_digest=policy.digest(),
        seed_commitment=seed_commitment(key),
        mlflow_run_id=mlflow_run,
    )
    tracking.log_params(mlflow_run, _flat(config.shown()) | {"policy": policy.digest(), "label": asked.position})
    return workdir.open_attempt(plan, config, policy, key)


def _check_scope(workdir: Workdir, dataset: ImageDataset, requests: Sequence[ErasureRequest], config: RunConfig, forgotten: Sequence[str]) -> None:
    rows = {request: dataset.class_names.index(dataset.class_called(request.label)) for request in requests}
    gone = [dataset.class_names.index(name) for name in forgotten]
    for row in rows.values():
        split_dataset(dataset.labels, dataset.class_names, row, (*gone, *(other for other in rows.values() if other != row)))
    first, *others = rows.values()  # what is retained is the same for all of them
    split_apart(dataset, first, (*gone, *others), config.dataset.duplicates, workdir.root)
    partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed)


def _try_judges(config: RunConfig, dataset: ImageDataset) -> None:
    if config.detector.path is None and config.features.path is None:
        return
    import torch  # imported here: most commands do not need it, and it is slow

    from erasediff.steps.judges import TRIED, check_paths

    check_paths(config, dataset.classes, torch.from_numpy(dataset.images[:TRIED]))


def _unfinished(
    workdir: Workdir, requests: Sequence[ErasureRequest], config: RunConfig, policy: GatePolicy, name: str | None, version: object | None
) -> Attempt | None:
    """An attempt with the same documents that can resume: its base, or its own version, is the champion."""
    runs = workdir.attempts_at(requests[0].digest()) if name is None else _named(workdir, name)
    champion = str(getattr(version, "version", ""))
    for run in reversed(runs):
        plan, base, promotion = run.plan(), run.find(BaseRecord), run.find(PromotionRecord)
        same = (
            not run.of_former_version
            and set(requests_in(run)) == set(requests)
            and (plan.config_digest, plan.policy_digest) == (config.digest(), policy.digest())
        )
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


def named_requests(workdir: Workdir, text: str, config: RunConfig) -> tuple[ErasureRequest, ...]:
    """The requests that Kubeflow was handed by positions, with the names of their classes.

    Raises:
        BadInput: they do not follow their schema, or their list of classes is neither the model's nor the dataset's.
    """

    def lists() -> Iterator[tuple[str, ...]]:
        tracking = Tracking(workdir.root)
        version = tracking.alias(config.model_name, CHAMPION)
        if version is not None:
            yield tracking.recorded_model(version).class_names
        yield load_dataset(config.dataset).class_names

    return tuple(request.named(lists()) for request in positioned_requests(text))
