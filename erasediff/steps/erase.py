"""Fetch the forget set by its version and make the base forget it."""

from __future__ import annotations

import numpy as np
import torch

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of, lead_of
from erasediff.data.commitment import indices_commitment, read_key
from erasediff.data.datasets import ImageDataset, dataset_of
from erasediff.data.shards import unpack
from erasediff.data.split import partition
from erasediff.errors import IntegrityError
from erasediff.files import atomic_path, sha256_file, write_atomic
from erasediff.models.family import Model
from erasediff.models.folder import load_model, save_model
from erasediff.progress import progress
from erasediff.records.base import Pointer
from erasediff.records.config import RunConfig
from erasediff.records.core import BaseRecord, ErasedRecord, ForgetSetRecord
from erasediff.steps.table import CHECKPOINT
from erasediff.steps.version_forget_set import forget_store, split_of
from erasediff.tracking import Tracking
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.encoded import encoded
from erasediff.unlearn.proxy import development_proxy
from erasediff.unlearn.trainer import Erasure, ErasureResult, with_numbers
from erasediff.unlearn.trainer import run as run_erasure
from erasediff.unlearn.workbench import ErasureData

CURVES = "curves.npz"


def erase(attempt: Attempt) -> ErasedRecord | None:
    """Erase, from the last checkpoint if there is one; under torchrun, several processes share the batch.

    The lead attempt of a batch erases all classes, and the other attempts use its model.

    Raises:
        BadInput: an earlier step is missing, or the forget set cannot be fetched.
        IntegrityError: the fetched forget set does not match its record.
        NonFinite: training diverged; the last checkpoint is kept.
    """
    lead, config = lead_of(attempt), attempt.config()
    if lead != attempt:
        record = lead.need(ErasedRecord)
        write_atomic(attempt.folder / CURVES, (lead.folder / record.curves.uri).read_bytes())
        return record
    base, compute = attempt.need(BaseRecord), Compute(config.device, config.erase.precision)
    model = load_model(attempt.workdir.models, base.model).sampled_by(config.sampler)
    with compute.main_first():
        data = _erasure_data(attempt, config, base, model.to(compute.device))
    erasure = Erasure(model, data, config.erase, config.seed, compute)
    enough = development_proxy(config.erase.proxy, data, model, config.sampler, config.seed) if config.erase.proxy else None
    with progress("erasing", config.erase.steps, config.erase.batch_size) as done:
        result = run_erasure(erasure, attempt.folder / CHECKPOINT, attempt.plan().digest(), with_numbers(erasure, done), enough)
    compute.wait()
    return _kept(attempt, base, model, result) if compute.is_main else None


def _kept(attempt: Attempt, base: BaseRecord, model: Model, result: ErasureResult) -> ErasedRecord:
    forgotten = (*base.model.forgotten, *(one.plan().request.label for one in batch_of(attempt)))
    saved = save_model(model.with_network(result.model), attempt.workdir.models, base.model.dataset, base.model.class_names, forgotten)
    _log(attempt, result)
    return ErasedRecord(
        model=saved.model_copy(update={"epoch": base.model.epoch + 1}),
        steps=result.steps,
        forward_passes=result.forward_passes,
        backward_passes=result.backward_passes,
        ema_base_share=result.ema_base_share,
        curves=Pointer(uri=CURVES, sha256=sha256_file(attempt.folder / CURVES)),
    )


def _erasure_data(attempt: Attempt, config: RunConfig, base: BaseRecord, model: Model) -> ErasureData:
    dataset = dataset_of(config.dataset, base.model)
    train = partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed).train
    forget = [(one.plan().position, _fetch_forget_images(one, train)) for one in batch_of(attempt)]
    retain = np.intersect1d(_retained(attempt, base, dataset), train)
    images, labels = torch.from_numpy(dataset.images[retain]), torch.from_numpy(dataset.labels[retain])
    return encoded(model, forget, images, labels, base.model.rows_forgotten)


def _retained(attempt: Attempt, base: BaseRecord, dataset: ImageDataset) -> np.ndarray:
    """Positions of the retained images; they must match the record of every forget set in the batch."""
    retain = split_of(attempt, base, dataset).split.retain
    for one in batch_of(attempt):
        key = read_key(attempt.workdir.request_key(one.plan().request))
        if indices_commitment(key, retain) != one.need(ForgetSetRecord).retain_indices_hmac:
            raise IntegrityError("the retain set is not the one of the forget set's record: run `erasediff version-forget-set` again.")
    return retain


def _fetch_forget_images(attempt: Attempt, train: np.ndarray) -> torch.Tensor:
    """The forget images from their versioned store, without the held-out ones; no copy stays on disk."""
    forget_set = attempt.need(ForgetSetRecord)
    with attempt.scratch() as scratch:
        target = scratch / "forget"
        forget_store(attempt, attempt.plan()).fetch(forget_set.version, target, scratch)
        images, labels, indices = unpack(target, forget_set.manifest_sha256)
    if not (labels == forget_set.label).all() or len(labels) != forget_set.count:
        raise IntegrityError(f"forget set {forget_set.version} does not hold what its record says: version it again.")
    return torch.from_numpy(images[np.isin(indices, train)])


def _log(attempt: Attempt, result: ErasureResult) -> None:
    with atomic_path(attempt.folder / CURVES) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **{name: values.numpy() for name, values in result.curves.items()})
    tracking, run_id = Tracking(attempt.workdir.root), attempt.plan().mlflow_run_id
    tracking.log_curves(run_id, {f"erase.{name}": values.tolist() for name, values in result.curves.items()})
    tracking.log_metrics(run_id, {"erase.ema_base_share": result.ema_base_share, "erase.forward_passes": result.forward_passes})
