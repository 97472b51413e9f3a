"""Fetch the forget set by its version and make the base forget it."""

from __future__ import annotations

import numpy as np
import torch

from erasediff.data.commitment import indices_commitment, read_key
from erasediff.data.datasets import load_dataset
from erasediff.data.partition import partition
from erasediff.data.shards import unpack
from erasediff.errors import IntegrityError
from erasediff.files import atomic_path, sha256_file, write_atomic
from erasediff.models.denoiser import to_unit
from erasediff.models.folder import load_model, save_model
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.progress import progress
from erasediff.records.base import Pointer
from erasediff.records.config import RunConfig
from erasediff.records.nouns import BaseRecord, ErasedRecord, ForgetSetRecord
from erasediff.records.workdir import CHECKPOINT, Run
from erasediff.steps.decided import erased_of
from erasediff.steps.version_forget_set import forget_store, split_of
from erasediff.tracking import Tracking
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.proxy import development_proxy
from erasediff.unlearn.trainer import Erasure, ErasureResult
from erasediff.unlearn.trainer import run as run_erasure
from erasediff.unlearn.workbench import ErasureData

CURVES = "curves.npz"


def erase(run: Run) -> ErasedRecord:
    """Erase, from the last checkpoint if there is one; under torchrun, as one of several processes with the joint batch.

    The first attempt of a batch erases for all of them, and the others take its model for theirs.

    Raises:
        BadInput: an earlier step is missing, or the forget set cannot be fetched.
        IntegrityError: what was fetched is not what the record names.
        NonFinite: training diverged; the last checkpoint is kept.
    """
    base, config, made_from = run.need(BaseRecord, "train-base"), run.config(), erased_of(run)
    if run.lead != run:
        return run.made(ErasedRecord, made_from, lambda: _shared(run))
    compute = Compute(config.device, config.erase.precision)
    if compute.is_main:
        record = run.made(ErasedRecord, made_from, lambda: _kept(run, base, compute))
        compute.wait()
    else:
        record = _helped(run, made_from, base, compute)
    # The checkpoint holds optimiser moments, which are functions of the forget images.
    (run.folder / CHECKPOINT).unlink(missing_ok=True)
    return record


def _shared(run: Run) -> ErasedRecord:
    """What the batch's first attempt has made."""
    record = run.lead.need(ErasedRecord, "erase")
    write_atomic(run.folder / CURVES, (run.lead.folder / record.curves.uri).read_bytes())
    return record


def _helped(run: Run, made_from: dict[str, str], base: BaseRecord, compute: Compute) -> ErasedRecord:
    """Take part as one of several processes, and read what the first one wrote."""
    present = run.find(ErasedRecord)
    if present is None or present.made_from != made_from:
        _erased(run, load_model(run.workdir.models, base.model), base, compute)
    compute.wait()
    return run.need(ErasedRecord, "erase")


def _erased(run: Run, pipeline: ClassConditionalPipeline, base: BaseRecord, compute: Compute) -> ErasureResult:
    config = run.config()
    with compute.main_first():
        data = _erasure_data(run, config, base)
    erasure = Erasure(pipeline.unet, pipeline.schedule, data, config.erase, config.seed, compute)
    enough = development_proxy(config.erase.proxy, data, pipeline, config.sampler, config.seed) if config.erase.proxy else None
    with progress("erasing", config.erase.steps) as done:
        return run_erasure(erasure, run.folder / CHECKPOINT, run.plan().digest(), done, enough)


def _kept(run: Run, base: BaseRecord, compute: Compute) -> ErasedRecord:
    pipeline = load_model(run.workdir.models, base.model)
    result = _erased(run, pipeline, base, compute)
    forgotten = (*base.model.forgotten, *(one.plan().request.label for one in run.batch()))
    saved = save_model(result.model, pipeline.scheduler, run.workdir.models, base.model.dataset, forgotten)
    model = saved.model_copy(update={"epoch": base.model.epoch + 1})
    _log(run, result)
    return ErasedRecord(
        model=model,
        steps=result.steps,
        forward_passes=result.forward_passes,
        backward_passes=result.backward_passes,
        ema_base_share=result.ema_base_share,
        curves=Pointer(uri=CURVES, sha256=sha256_file(run.folder / CURVES)),
    )


def _erasure_data(run: Run, config: RunConfig, base: BaseRecord) -> ErasureData:
    dataset = load_dataset(config.dataset)
    train = partition(dataset.labels, config.dataset.holdout_share, config.dataset.holdout_seed).train
    batch = run.batch()
    forget = [to_unit(_fetch_forget_images(one, train)) for one in batch]
    retain = np.intersect1d(_retained(run, base, dataset.labels), train)
    return ErasureData(
        forget=torch.cat(forget),
        forget_labels=torch.cat([torch.full((len(images),), one.plan().request.label) for one, images in zip(batch, forget, strict=True)]),
        retain=to_unit(torch.from_numpy(dataset.images[retain])),
        retain_labels=torch.from_numpy(dataset.labels[retain]),
        null_label=dataset.classes,
        earlier=base.model.forgotten,
    )


def _retained(run: Run, base: BaseRecord, labels: np.ndarray) -> np.ndarray:
    """Positions of the images that stay, which are those that every forget set of the batch was split from."""
    retain = split_of(run, base, labels).retain
    for one in run.batch():
        key = read_key(run.workdir.request_key(one.plan().request))
        if indices_commitment(key, retain) != one.need(ForgetSetRecord, "version-forget-set").retain_indices_hmac:
            raise IntegrityError("the retain set is not the one of the forget set's record: run `erasediff version-forget-set` again.")
    return retain


def _fetch_forget_images(run: Run, train: np.ndarray) -> torch.Tensor:
    """The versioned forget images that the base may have been trained on; no copy stays on the disk."""
    forget_set = run.need(ForgetSetRecord, "version-forget-set")
    with run.scratch() as scratch:
        target = scratch / "forget"
        forget_store(run, run.plan()).fetch(forget_set.version, target, scratch)
        images, labels, indices = unpack(target, forget_set.manifest_sha256)
    if not (labels == forget_set.label).all() or len(labels) != forget_set.count:
        raise IntegrityError(f"forget set {forget_set.version} does not hold what its record says: version it again.")
    return torch.from_numpy(images[np.isin(indices, train)])


def _log(run: Run, result: ErasureResult) -> None:
    with atomic_path(run.folder / CURVES) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **{name: values.numpy() for name, values in result.curves.items()})
    tracking, run_id = Tracking(run.workdir.root), run.plan().mlflow_run_id
    tracking.log_curves(run_id, {f"erase.{name}": values.tolist() for name, values in result.curves.items()})
    tracking.log_metrics(run_id, {"erase.ema_base_share": result.ema_base_share, "erase.forward_passes": result.forward_passes})
