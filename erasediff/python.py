"""Four calls for a program or a notebook: load a model, make it forget, examine the two, and judge; see docs/python.md.

They do what the steps of the pipeline do, with the same functions, and keep no records: nothing is registered, purged or certified. A model comes
and goes as a pipeline of diffusers. Progress is shown on standard error: bars on a terminal, else a line every few seconds.
"""

from __future__ import annotations

import difflib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch

from erasediff.data.datasets import ImageDataset, encode_labels, load_dataset
from erasediff.data.readers.names import Spellings
from erasediff.data.rows import write_rows
from erasediff.data.split import partition
from erasediff.data.twins import split_apart
from erasediff.display import display
from erasediff.errors import BadInput
from erasediff.evaluate.examine import Asked, Bench
from erasediff.evaluate.examine import examine as examine_models
from erasediff.evaluate.features.opening import open_extractor
from erasediff.evaluate.gate import Decision, History, run_gate
from erasediff.evaluate.neighbours import Neighbourhood
from erasediff.evaluate.real import real_images
from erasediff.evaluate.seeds import evaluation_key
from erasediff.models.asked import listed, listed_texts, whole_number
from erasediff.models.pipelines import Classes, model_of, open_pipeline, pipeline_of
from erasediff.progress import progress, shown_by
from erasediff.records.config import DatasetConfig, EraseConfig, RunConfig, dataset_fields
from erasediff.records.measurements import Measurements
from erasediff.records.names import ClassRecord, shown_names
from erasediff.records.policy import SHIPPED_POLICIES, GatePolicy, policy_named
from erasediff.steps.import_base import check_fits
from erasediff.steps.judges import TRIED, classifier_of
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.encoded import encoded
from erasediff.unlearn.proxy import development_proxy
from erasediff.unlearn.trainer import Erasure, with_numbers
from erasediff.unlearn.trainer import run as run_erasure

Dataset = str | Path | tuple[Any, Any]
"""``KIND:PATH`` as ``--dataset`` takes it (docs/own-data.md), ``digits``, or images ``uint8 [N,H,W,C]`` and the name of the class of each."""
_OF_ERASE = tuple(EraseConfig.model_fields)
_OF_DATASET = tuple(name for name in DatasetConfig.model_fields if name not in ("name", "kind", "path"))
_OF_RUN = ("seed", "device", "sampler", "detector", "features", "base_training")


def load(folder: str | Path, classes: Sequence[str] | int | None = None) -> Any:
    """Load a class-conditional model, whichever way diffusers saved it; see docs/own-model.md.

    Args:
        folder: as ``save_pretrained`` writes it, or one file of weights with its configs beside it.
        classes: the names of its classes in order, or their number, by which they are named "0", "1" and so on. Unset, they are read from the
            folder, where this package or a ``DiTPipeline`` was saved.

    Returns:
        A diffusers pipeline: a ``ClassConditionalPipeline`` (unet and scheduler) or a ``DiTPipeline``.

    Raises:
        BadInput: there is no such model, it is of another kind or damaged, or nothing says how many classes it has.
    """
    if not isinstance(folder, str | Path):
        raise BadInput(f"the model is of type {type(folder).__name__} and no path: give load() the path of its folder as text.")
    return open_pipeline(Path(folder), classes)


def erase(model: Any, *, dataset: Dataset, forget: str | Sequence[str], retain: str | Sequence[str] | None = None, **config: Any) -> Any:
    """Make a model forget classes.

    Args:
        model: what :func:`load` returned, or a ``DiTPipeline``; it stays as it is.
        dataset: what the model was trained on; see :data:`Dataset`. A share of it (``holdout_share``) is held out for :func:`examine`.
        forget: the name of the class to forget, or several.
        retain: the names of all other classes that the model still knows, for who wants to be explicit.
        config: fields of ``erase`` and ``dataset`` in params.yaml, and ``seed``, ``device`` and ``sampler``.

    Returns:
        Another pipeline of the same kind, on the CPU, with the scheduler that ``sampler`` names.

    Raises:
        BadInput: a class, the dataset or a setting does not fit.
        NonFinite: training diverged.
    """
    base, classes = model_of(model)
    settings = _settings(dataset, config)
    rows = _rows(classes, _names(forget, "forget"), None if retain is None else _names(retain, "retain"))
    images = _opened(dataset, settings, classes, base)
    base = base.sampled_by(settings.sampler)
    compute = Compute(settings.device, settings.erase.precision)
    forgotten = classes.rows_forgotten
    with _shown():
        with _place() as folder:
            splits = [
                split_apart(images, row, (*forgotten, *(other for other in rows if other != row)), settings.dataset.duplicates, folder).split
                for row in rows
            ]
        train = partition(images.labels, settings.dataset.holdout_share, settings.dataset.holdout_seed).train
        retained = reduce(np.intersect1d, (split.retain for split in splits), train)
        of_forget = [(row, torch.from_numpy(images.images[np.intersect1d(split.forget, train)])) for row, split in zip(rows, splits, strict=True)]
        kept, labels = torch.from_numpy(images.images[retained]), torch.from_numpy(images.labels[retained])
        data = encoded(base, of_forget, kept, labels, forgotten)
        erasure = Erasure(base, data, settings.erase, settings.seed, compute)
        proxy = settings.erase.proxy
        enough = development_proxy(proxy, data, base, settings.sampler, settings.seed) if proxy else None
        with progress("erasing", settings.erase.steps, settings.erase.batch_size) as done:
            result = run_erasure(erasure, None, settings.digest(), with_numbers(erasure, done), enough)
    names = (*classes.forgotten, *(classes.class_names[row] for row in rows))
    return pipeline_of(base.with_network(result.model), classes.model_copy(update={"forgotten": names}))


def examine(
    base: Any, erased: Any, *, dataset: Dataset, forget: str, policy: str | Path | GatePolicy = SHIPPED_POLICIES[0], **config: Any
) -> Measurements:
    """Sample two models from the same noise, and measure what a policy asks: how often detectors see the class, and how the others fare.

    The detector is trained here, on the images that :func:`erase` holds out. The seeds are no secret and follow from ``seed``: whoever tunes a model
    until it passes has tuned it to them. Both models are moved to the device.

    Args:
        base: the model before.
        erased: the model after.
        dataset: the same as for :func:`erase`.
        forget: the name of the forgotten class.
        policy: a shipped policy by its name, a policy's file, or a policy.
        config: as for :func:`erase`, and ``detector``, ``features`` and ``base_training`` (for tier 2).

    Raises:
        BadInput: the models are of different classes, the class was not forgotten, or a class, the dataset, the policy or a setting does not fit.
    """
    (before, classes), (after, left) = model_of(base), model_of(erased)
    settings, rule = _settings(dataset, config), _policy(policy)
    label, *more = _rows(classes, _names(forget, "forget"), None)
    if more:
        raise BadInput("examine() looks at one class: name one by forget=, and call it again for each other.")
    if left.class_names != classes.class_names or not set(classes.forgotten) <= set(left.forgotten) or label not in left.rows_forgotten:
        raise BadInput(
            f"the second model is not the first one without class {shown_names([classes.class_names[label]])}: give examine() the model that erase() "
            "took, and the one that it returned."
        )
    images = _opened(dataset, settings, classes, before)
    before, after = before.sampled_by(settings.sampler), after.sampled_by(settings.sampler)
    with _shown(), _place() as folder:
        real = real_images(images, settings.dataset)
        detector = classifier_of(settings.detector, folder / "detector.safetensors", real)
        extractor = open_extractor(settings.features, detector, real.holdout[:TRIED])
        bench = Bench(detector, Neighbourhood(real.holdout, real.holdout_labels), extractor)
        asked = Asked(label, left.rows_forgotten, classes.rows_forgotten, rule, evaluation_key(settings.seed))
        return examine_models(bench, real, asked, before, after, settings).measured


def judge(measured: Measurements, policy: str | Path | GatePolicy = SHIPPED_POLICIES[0]) -> Decision:
    """Decide by a policy: PASS, FAIL or INCONCLUSIVE, and the checks that say why; as a first try at a first erasure.

    How far earlier erasures moved the model is not known here, so a model that had forgotten a class before is INCONCLUSIVE by R4:
    ``erasediff run`` keeps account of it.

    Args:
        measured: by :func:`examine`, by the same policy.
        policy: see :func:`examine`.
    """
    if not isinstance(measured, Measurements):
        raise BadInput(f"what is to be judged is of type {type(measured).__name__}: give judge() what examine() returned.")
    before = (*sorted(map(int, measured.earlier)), *measured.unseen)
    known = {measured.label, *before, *(row.label for row in measured.retained.accuracy)}
    beside = tuple(row for row in range(len(measured.class_names)) if row not in known)
    history = History(forgotten=before, drift=None if before else 1.0, beside=beside)
    return run_gate(_policy(policy), measured, history)


def _settings(dataset: Dataset, config: dict[str, Any]) -> RunConfig:
    known = (*_OF_ERASE, *_OF_DATASET, *_OF_RUN)
    if odd := next((name for name in config if name not in known), None):
        near = difflib.get_close_matches(odd, known, 1)
        advice = f"did you mean {near[0]!r}?" if near else "params.yaml lists them under erase and dataset."
        raise BadInput(f"{odd!r} is not a setting of this call: {advice}")
    arrays = _arrays(dataset)
    if arrays is not None and "size" in config:
        raise BadInput("size resizes the pictures of a folder alone: give images of the model's size.")
    of_dataset = {name: config[name] for name in _OF_DATASET if name in config}
    where = dataset_fields(str(dataset)) if arrays is None else {}
    document = {name: config[name] for name in _OF_RUN if name in config}
    document |= {"erase": {name: config[name] for name in _OF_ERASE if name in config}, "dataset": where | of_dataset}
    return RunConfig.parse(document, "the call")


def _opened(dataset: Dataset, settings: RunConfig, classes: ClassRecord, model: Classes) -> ImageDataset:
    """The dataset in the order of the model's classes."""
    arrays = _arrays(dataset)
    images = load_dataset(settings.dataset) if arrays is None else _of_arrays(*arrays)
    images = images.in_order_of(classes)
    check_fits(model, images, "the model")
    return images


def _arrays(dataset: object) -> tuple[Any, Any] | None:
    """The images and the labels; ``None`` for a dataset that is named."""
    if isinstance(dataset, str | Path):
        return None
    if not isinstance(dataset, tuple | list) or len(dataset) != 2:
        what = f"has {len(dataset)} parts" if isinstance(dataset, tuple | list) else f"is of type {type(dataset).__name__}"
        raise BadInput(f"dataset {what}: give 'KIND:PATH' such as 'imagefolder:PATH', 'digits', or a pair of images and labels.")
    images, labels = dataset
    return images, labels


def _of_arrays(images: Any, labels: Any) -> ImageDataset:
    try:
        pixels = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    except (TypeError, ValueError, RuntimeError):  # the last from a list of tensors that are trained
        raise BadInput("the images make no array, as pictures of several sizes do: give uint8 [N,H,W,C] with C 1 or 3.") from None
    texts = _texts(labels)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or len(pixels) != len(texts):
        raise BadInput(
            f"the images are {pixels.dtype} {list(pixels.shape)} with {len(texts)} labels: give uint8 [N,H,W,C] with C 1 or 3, and a label for each."
        )
    class_names, rows = encode_labels(Spellings(Path("in memory")).names(texts, lambda at: f"image {at}"))
    return ImageDataset("in memory", write_rows([pixels]), rows, class_names)


def _texts(labels: object) -> list[str]:
    values = listed(labels)
    found = [label if isinstance(label, str) else whole_number(label) for label in values or ()]
    if values is None or None in found:
        raise BadInput("the labels are no list of classes: give the name of the class of each image, as text or as a whole number.")
    return [str(label) for label in found]


def _policy(policy: str | Path | GatePolicy) -> GatePolicy:
    if isinstance(policy, GatePolicy):
        return policy
    if not isinstance(policy, str | Path):
        raise BadInput(
            f"policy is of type {type(policy).__name__}: give one of {', '.join(SHIPPED_POLICIES)}, the path of a policy, or a GatePolicy."
        )
    return policy_named(str(policy))


def _names(given: object, setting: str) -> list[str]:
    """The names of classes; a text is one of them."""
    names = [given] if isinstance(given, str) else listed_texts(sorted(given, key=str) if isinstance(given, Set) else given)
    if names is None:
        raise BadInput(f"a class is told by its name, as text: write {setting}='3' for the class that is called 3, and a list for several.")
    return names


def _rows(classes: ClassRecord, forget: Sequence[str], retain: Sequence[str] | None) -> list[int]:
    """The rows to forget, ascending."""
    rows = sorted({classes.row(name) for name in forget})
    if not rows:
        raise BadInput("no class is to be forgotten: name one by forget=.")
    stays = set(range(classes.classes)) - set(rows) - set(classes.rows_forgotten)
    if retain is not None and {classes.row(name) for name in retain} != stays:
        wanted = shown_names([classes.class_names[row] for row in sorted(stays)])
        raise BadInput(f"a class would be neither forgotten nor retained, or both: retain has to name {wanted}, or to be left out.")
    return rows


@contextmanager
def _shown() -> Iterator[None]:
    with display(sys.stderr) as viewer, shown_by(viewer):
        yield


@contextmanager
def _place() -> Iterator[Path]:
    """A folder of its own, which stays only where an error points into it."""
    folder = Path(tempfile.mkdtemp(prefix="erasediff-"))
    try:
        yield folder
    except BadInput as error:
        if str(folder) not in str(error):
            shutil.rmtree(folder)
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
