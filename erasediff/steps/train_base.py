"""Pin the champion as the attempt's base; train and register one if the registry has none."""

from __future__ import annotations

import math
from typing import Any

import torch

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of, lead_of
from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import ImageDataset, dataset_of, load_dataset
from erasediff.data.split import partition
from erasediff.errors import BadInput, IntegrityError
from erasediff.evaluate.real import real_images
from erasediff.files import temporary_folder
from erasediff.models.denoiser import resolve_device
from erasediff.models.family import Model
from erasediff.models.folder import load_recorded, save_model
from erasediff.models.training import new_base
from erasediff.models.training import train_base as train
from erasediff.progress import progress
from erasediff.records.config import RunConfig
from erasediff.records.core import BaseRecord, ModelRecord
from erasediff.steps.judges import pin_judges
from erasediff.tracking import CHAMPION, DRIFT_TAG, FORGOTTEN_TAG, MODEL_ARTIFACTS, Tracking, model_tags


def train_base(attempt: Attempt) -> BaseRecord:
    """Pin this attempt's base and judges; a batch shares those of its lead.

    Raises:
        BadInput: there is no champion and the config trains none, or its classes are not those that the attempt was opened with.
    """
    lead, config = lead_of(attempt), attempt.config()
    if lead != attempt:
        return lead.need(BaseRecord)
    base = ensure_champion(attempt.workdir, config)
    for plan in (one.plan() for one in batch_of(attempt)):
        if base.model.class_names[plan.position : plan.position + 1] != (plan.request.label,):
            raise BadInput(f"the champion of {base.name!r} has other classes than when the run was opened: run the command again with another --run.")
    judges = pin_judges(attempt, real_images(dataset_of(config.dataset, base.model), config.dataset))
    return base.model_copy(update={"judges": judges})


def ensure_champion(workdir: Workdir, config: RunConfig) -> BaseRecord:
    """Fetch and check the champion; train and register it first if there is none."""
    tracking = Tracking(workdir.root)
    version = tracking.alias(config.model_name, CHAMPION)
    if version is None:
        number = _train_and_register(workdir, config, tracking)
        tracking.set_alias(config.model_name, CHAMPION, number)
        version = tracking.resolve(f"models:/{config.model_name}@{CHAMPION}")
    model = fetch_model(workdir, tracking, version)
    return BaseRecord(name=config.model_name, version=str(version.version), model=model, drift=_drift(version, model))


def _drift(version: object, model: ModelRecord) -> float | None:
    """How far earlier erasures moved the retained classes: 1 if there were none, ``None`` if the tag is missing."""
    if not model.forgotten:
        return 1.0
    tag = getattr(version, "tags", {}).get(DRIFT_TAG, "")
    try:
        drift = float(tag)
    except ValueError:
        return None
    return drift if math.isfinite(drift) and drift > 0 else None


def fetch_model(workdir: Workdir, tracking: Tracking, version: Any) -> ModelRecord:
    """Fetch the model of a registered version into the workdir and check it against its record.

    Raises:
        BadInput: the version was not registered by this EraseDiff.
        IntegrityError: its bytes do not match its record, or that is not the one of its tag.
    """
    record = tracking.recorded_model(version)
    folder = workdir.models / record.weights.uri
    if folder.parent != workdir.models:
        raise IntegrityError(f"the record of version {version.version} of {version.name} points outside the model folder: register the model again.")
    if not folder.is_dir():
        workdir.models.mkdir(parents=True, exist_ok=True)
        with temporary_folder(workdir.models, ".incoming-") as incoming:
            fetched = tracking.download(version.source, incoming)
            load_recorded(fetched, record)
            fetched.replace(folder)
    load_recorded(folder, record)
    return record


def _train_and_register(workdir: Workdir, config: RunConfig, tracking: Tracking) -> str:
    if config.base_training is None:
        raise BadInput(f"MLflow has no champion of {config.model_name!r}: add base_training to the config or register one.")
    check_new_base(tracking, config)
    dataset = load_dataset(config.dataset)
    chosen = partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed).train
    images, labels = torch.from_numpy(dataset.images[chosen]), torch.from_numpy(dataset.labels[chosen])
    losses: list[float] = []
    with progress("training the base", config.base_training.steps, config.base_training.batch_size) as done:

        def report(step: int, loss: float) -> None:
            losses.append(loss)
            done(step, loss=loss)

        fresh = new_base(config, images.shape[3], images.shape[1], dataset.classes)
        model = train(fresh, fresh.encode(images), labels, config, resolve_device(config.device), report)
    return register_base(workdir, config, tracking, dataset, model, {"base_loss": losses})[0]


def check_new_base(tracking: Tracking, config: RunConfig) -> None:
    """Check that a new base brings back nothing that was forgotten.

    Raises:
        BadInput: the registered model has versions that have forgotten data.
    """
    if erased := tracking.versions_with_tag(config.model_name, FORGOTTEN_TAG):
        raise BadInput(
            f"{config.model_name!r} has no champion, but its version {erased[-1]} has forgotten data, which a new base would learn again: "
            f"point the alias {CHAMPION!r} to that version in MLflow, or choose another model_name."
        )


def register_base(
    workdir: Workdir,
    config: RunConfig,
    tracking: Tracking,
    dataset: ImageDataset,
    model: Model,
    curves: dict[str, list[float]],
) -> tuple[str, ModelRecord]:
    """Save a base, upload it and register it; returns its version and its record.

    Args:
        workdir: the workdir.
        config: names the registered model.
        tracking: MLflow.
        dataset: of the model's classes.
        model: the base.
        curves: what its training logged, by name.
    """
    record = save_model(model, workdir.models, dataset.name, dataset.class_names, ())
    run_id = tracking.start_run(f"base of {dataset.name}", {"erasediff.dataset": dataset.digest()})
    tracking.log_curves(run_id, curves)
    with progress("uploading the base", 1):
        source = tracking.log_artifacts(run_id, workdir.models / record.weights.uri, MODEL_ARTIFACTS)
        tracking.log_model_record(run_id, record)
    number = tracking.register(config.model_name, source, run_id, model_tags(record) | {"erasediff.dataset": dataset.digest()})
    tracking.end_run(run_id, "FINISHED")
    return number, record
