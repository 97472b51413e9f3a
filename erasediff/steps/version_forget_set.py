"""Split off, pack, version and push the forget set; the record holds only counts and digests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import others_of
from erasediff.data.commitment import indices_commitment, request_key
from erasediff.data.datasets import ImageDataset, dataset_of
from erasediff.data.shards import pack
from erasediff.data.twins import Apart, split_apart
from erasediff.data.versioning import ForgetStore
from erasediff.errors import BadInput
from erasediff.progress import progress
from erasediff.records.base import Sha256
from erasediff.records.core import BaseRecord, ForgetSetRecord, PlanRecord
from erasediff.records.settings import ServiceSettings
from erasediff.tracking import Tracking


def version_forget_set(attempt: Attempt) -> ForgetSetRecord:
    """Version the forget set of this attempt.

    Raises:
        BadInput: the forget set or the retain set is empty, the dataset changed since the plan, or the remote fails.
    """
    plan, base = attempt.plan(), attempt.need(BaseRecord)
    dataset = dataset_of(attempt.config().dataset, base.model)
    try:
        apart = split_of(attempt, base, dataset)
    except BadInput:
        _check_unchanged(dataset, plan.made_from["dataset"])  # else this is why
        raise
    split, labels = apart.split, dataset.labels.copy()
    labels[split.forget] = plan.position  # what joined the forget set too
    store, key = forget_store(attempt, plan), request_key(attempt.workdir.request_key(plan.request))
    with attempt.scratch() as scratch:
        packed = scratch / "forget"
        manifest = pack_unchanged(dataset, plan.made_from["dataset"], labels, split.forget, packed, key)
        with progress("uploading the forget set", 1):
            version = store.publish(packed, scratch)
    record = ForgetSetRecord(
        label=plan.position,
        version=version,
        remote=store.shown,
        manifest_sha256=manifest,
        count=len(split.forget),
        retain_count=len(split.retain),
        gone_count=len(split.gone),
        forget_indices_hmac=indices_commitment(key, split.forget),
        retain_indices_hmac=indices_commitment(key, split.retain),
        comparison=apart.comparison,
    )
    Tracking(attempt.workdir.root).log_params(
        plan.mlflow_run_id, {"forget_set.version": version, "forget_set.count": record.count, "base.version": base.version}
    )
    return record


def pack_unchanged(
    dataset: ImageDataset, expected: Sha256, labels: NDArray[np.int64], indices: NDArray[np.int64], folder: Path, key: bytes
) -> Sha256:
    """Pack images of a dataset that still has its digest; see :func:`erasediff.data.shards.pack`.

    The digest needs every image, so it is computed beside the packing.

    Raises:
        BadInput: the dataset has another digest.
    """
    with ThreadPoolExecutor(1) as pool:
        unchanged = pool.submit(_check_unchanged, dataset, expected)
        manifest = pack(dataset.images, labels, indices, folder, key)
        unchanged.result()
    return manifest


def _check_unchanged(dataset: ImageDataset, expected: Sha256) -> None:
    if dataset.digest() != expected:
        raise BadInput(f"dataset {dataset.name!r} changed since the run was opened: run the command again to open a new attempt.")


def forget_store(attempt: Attempt, plan: PlanRecord) -> ForgetStore:
    """The request's store: a remote prefix of its own, so that a purge can delete all of it."""
    settings = ServiceSettings.load()
    root = settings.dvc_remote
    if root is None:
        folder = attempt.workdir.root / "forget-remote"
        folder.mkdir(exist_ok=True)
        root = str(folder)
    remote = f"{root.rstrip('/')}/{plan.request.digest()[:16]}"
    return ForgetStore(remote, settings.dvc_remote_endpoint_url, attempt.workdir.root)


def split_of(attempt: Attempt, base: BaseRecord, dataset: ImageDataset) -> Apart:
    """Split the images by their labels and compare the sets; classes of the batch's other attempts are in neither set.

    Raises:
        BadInput: the forget set or the retain set is empty, or has pictures of the other where the configuration refuses that.
    """
    beside = (other.plan().position for other in others_of(attempt))
    gone, rule = (*base.model.rows_forgotten, *beside), attempt.config().dataset.duplicates
    return split_apart(dataset, attempt.plan().position, gone, rule, attempt.workdir.root)
