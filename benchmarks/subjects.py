"""What the benchmarks erase from: a dataset, its base model, its detector and its policy, prepared once by ``benchmarks.base``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.results_file import ROOT
from erasediff.data.datasets import load_dataset
from erasediff.data.split import partition
from erasediff.evaluate.detectors import Detector, stored_detector
from erasediff.evaluate.real import RealImages, real_images
from erasediff.files import sha256_bytes, sha256_folder, shipped
from erasediff.models.denoiser import to_unit
from erasediff.models.families import load_folder
from erasediff.models.family import Model
from erasediff.records.base import canonical_json
from erasediff.records.config import RunConfig, load_config
from erasediff.records.policy import GatePolicy, load_policy
from erasediff.unlearn.workbench import ErasureData

BUILD = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Subject:
    """A dataset with its configuration, and the labels that are forgotten in turn."""

    name: str
    config: RunConfig
    policy: GatePolicy
    labels: tuple[int, ...]

    @property
    def folder(self) -> Path:
        """Where base and detector of exactly this configuration lie."""
        dataset = self.config.dataset.model_copy(update={"path": None})  # it differs from machine to machine
        detector = self.config.detector.model_dump(mode="json", exclude={"kind", "path", "labels"})  # it is always trained here
        parts = (dataset, self.config.denoiser, self.config.base_training)
        made_from = [*(part.model_dump(mode="json") for part in parts if part), detector]
        return BUILD / f"{self.name}-{sha256_bytes(canonical_json(made_from))[:12]}"


def subject(name: str, size: int | None = None, policy_name: str = "class-conditional-strict") -> Subject:
    """A subject by its name: ``digits`` or ``fashion-mnist``; methods are compared by the strict policy."""
    policy = load_policy(shipped(f"policies/{policy_name}.yaml"))
    if name == "digits":
        return Subject(name, RunConfig(), policy, (0, 3, 8))
    config = load_config(ROOT / "benchmarks" / f"{name}.yaml")
    path = (ROOT / str(config.dataset.path)).resolve()
    dataset = config.dataset.model_copy(update={"path": str(path), "size": size or config.dataset.size})
    return Subject(name if size is None else f"{name}-{size}", config.model_copy(update={"dataset": dataset}), policy, (0, 5, 8))


def asked_digest(policy: GatePolicy) -> str:
    """What decides an answer on the policy's tier: limits of attacks that tier 1 does not ask for leave its rows as they are."""
    unasked = {"attacks"} if policy.tier == 1 else set()
    return sha256_bytes(canonical_json(policy.model_dump(mode="json", exclude=unasked)))


def drawn_digest(policy: GatePolicy) -> str:
    """What decides which samples the base is asked for on tier 1: no attacks, and not what counts of them afterwards."""
    later = {"attacks": True, "probes": {"min_kinship", "max_upper", "max_excess"}, "retain": {"max_per_class"}}
    return sha256_bytes(canonical_json(policy.model_dump(mode="json", exclude=later)))


@cache
def base_digest(folder: Path) -> str:
    """Which base lies in a subject's folder: one trained again, or on another machine, is another."""
    return sha256_folder(folder / "base")[:12]


@dataclass(frozen=True)
class Prepared:
    """A subject in memory."""

    subject: Subject
    base: Model
    detector: Detector
    real: RealImages

    def data_without(self, label: int) -> ErasureData:
        """The split that the erase step makes: images that the base was trained on, apart by label."""
        images, labels = to_unit(self.real.train), self.real.train_labels
        forget = labels == label
        return ErasureData(images[forget], labels[forget], images[~forget], labels[~forget], self.real.classes)


def prepare(subject: Subject) -> Prepared:
    """Load a subject; its base must have been trained by ``benchmarks.base``."""
    if not (subject.folder / "base").is_dir():
        raise SystemExit(f"there is no base for {subject.name}: run `make bench-base` first.")
    real = real_images(load_dataset(subject.config.dataset), subject.config.dataset)
    return Prepared(subject, load_folder(subject.folder / "base"), detector_of(subject, real), real)


def detector_of(subject: Subject, real: RealImages) -> Detector:
    """The subject's detector, trained on held-out images if it is not there yet."""
    path = subject.folder / "detector.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return stored_detector(path, real.holdout, real.holdout_labels, real.classes, subject.config.detector)


def training_images(subject: Subject) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The images ``float32 [N,C,H,W]`` and labels that the base is trained on, and the number of classes."""
    dataset = load_dataset(subject.config.dataset)
    train = partition(dataset.labels, subject.config.dataset.holdout_share, subject.config.dataset.holdout_seed).train
    return to_unit(torch.from_numpy(np.array(dataset.images[train]))), torch.from_numpy(np.array(dataset.labels[train])), dataset.classes
