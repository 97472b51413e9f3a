"""Register a model that was trained elsewhere as the base, after asking at once what would fail later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import ImageDataset, load_dataset
from erasediff.errors import BadInput
from erasediff.evaluate.detectors import Detector
from erasediff.evaluate.real import real_images
from erasediff.evaluate.sampling import draw_samples
from erasediff.evaluate.seeds import check_seeds, evaluation_key
from erasediff.evaluate.statistics import binomial_upper
from erasediff.files import check_destination
from erasediff.models.bring import bring
from erasediff.models.denoiser import resolve_device
from erasediff.models.family import Model
from erasediff.records.config import RunConfig
from erasediff.records.names import ClassRecord
from erasediff.records.policy import GatePolicy
from erasediff.steps.judges import classifier_of
from erasediff.steps.sample import write_png
from erasediff.steps.train_base import check_new_base, register_base
from erasediff.tracking import CHAMPION, Tracking

_SAMPLES = 100
"""Of each class: enough to see that a class is not made."""
_SHOWN = 8


@dataclass(frozen=True)
class Imported:
    """What was registered.

    Attributes:
        name, version: of the registered model.
        weights_sha256: of the weights in float32.
        made: the share of samples that the classifier calls by their class, by its name.
        notes: what was chosen where the folder left a choice.
    """

    name: str
    version: str
    weights_sha256: str
    made: Mapping[str, float]
    notes: tuple[str, ...]


def import_base(
    workdir: Workdir, folder: Path, config: RunConfig, policy: GatePolicy, sheet: Path | None = None, classes: Sequence[str] | None = None
) -> Imported:
    """Check a model, sample every class of it, and register it as the champion of the configuration's model name.

    Args:
        workdir: the workdir.
        folder: see :func:`erasediff.models.bring.bring`.
        config: names the model, the dataset of its classes and the sampler.
        policy: how often a base has to make a class (C0).
        sheet: a PNG file for a few samples of every class; none if unset.
        classes: the names of the model's classes in its order; the dataset's if unset.

    Raises:
        BadInput: the model cannot be used, is of other classes than the dataset, does not make one of them, there is a champion already, or the
            sheet cannot be written.
    """
    if sheet is not None:
        check_destination(sheet, "--sheet")
    tracking = Tracking(workdir.root)
    if tracking.alias(config.model_name, CHAMPION) is not None:
        raise BadInput(f"MLflow has a champion of {config.model_name!r} already: set another model_name in the config.")
    check_new_base(tracking, config)
    dataset = load_dataset(config.dataset)
    if classes is not None:
        dataset = dataset.in_order_of(ClassRecord.parse({"class_names": classes}, "the list of classes"))
    brought = bring(folder, dataset.classes)
    model = brought.model.sampled_by(config.sampler)
    check_fits(model, dataset, str(folder))
    real = real_images(dataset, config.dataset)
    labels = torch.arange(dataset.classes).repeat_interleave(_SAMPLES)
    seeds = check_seeds(evaluation_key(config.seed), "import", len(labels))
    images = draw_samples(model.source(resolve_device(config.device)), labels, seeds, config.sampler, "sampling every class")
    if sheet is not None:
        write_png(images.view(dataset.classes, _SAMPLES, *images.shape[1:])[:, :_SHOWN].flatten(0, 1), sheet, columns=_SHOWN)
    if bool((images == images[:1]).all()):
        raise BadInput(f"all samples of {folder} are the same picture: hand in a model that was trained, with the scheduler that trained it.")
    made = _made(classifier_of(config.detector, workdir.detector(dataset.digest(), config), real), images, labels, dataset)
    _check_made(made, policy, config)
    number, record = register_base(workdir, config, tracking, dataset, brought.model.to(torch.device("cpu")), {})
    tracking.set_alias(config.model_name, CHAMPION, number)
    return Imported(config.model_name, number, record.weights.sha256, made, brought.notes)


def check_fits(model: Model, dataset: ImageDataset, called: str) -> None:
    """Refuse a model that does not make images of the dataset's size and channels; ``called`` is what the sentence calls it."""
    height, width, channels = dataset.images.shape[1:]
    if model.image_shape != (channels, height, width):
        c, h, w = model.image_shape
        raise BadInput(
            f"{called} makes images of {w}x{h} pixels with {c} channels, and those of {dataset.name} have {width}x{height} with {channels}: "
            "name the dataset that it was trained on, or --resize it."
        )


def _made(detector: Detector, images: Tensor, labels: Tensor, dataset: ImageDataset) -> dict[str, float]:
    found = detector.labels(images) == labels
    return {name: float(found[labels == label].float().mean()) for label, name in enumerate(dataset.class_names)}


def _check_made(made: Mapping[str, float], policy: GatePolicy, config: RunConfig) -> None:
    least = policy.control.min_detected
    missing = [f"{name} ({share:.0%})" for name, share in made.items() if binomial_upper(round(share * _SAMPLES), _SAMPLES, policy.alpha) < least]
    if missing:
        raise BadInput(
            f"the model does not make {', '.join(missing)}: the gate asks for {least:.0%} of its samples (C0), so no erasure could be judged; "
            f"train it longer, raise sampler.steps ({config.sampler.steps}) or sampler.guidance_scale ({config.sampler.guidance_scale:g}), or check "
            "that its classes are in the order of --classes, or of the dataset's."
        )
