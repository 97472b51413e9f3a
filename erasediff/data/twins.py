"""Refuse, or move to the forget set, what lies under a retained label and is a picture to forget: an erasure would keep it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasediff.data.datasets import ImageDataset
from erasediff.data.looks import CORRELATION, DISTANCE, Looks, Twins
from erasediff.data.perceptual import BITS
from erasediff.data.split import Split, check_split, split_dataset
from erasediff.errors import BadInput
from erasediff.files import write_atomic
from erasediff.records.config import DuplicatesRule
from erasediff.records.core import Comparison, NearComparison
from erasediff.records.names import shown_names

TWINS = "twins.csv"
"""The list of such pictures, for whoever keeps the dataset. It goes once a run finds none."""


@dataclass(frozen=True)
class Apart:
    """A split, with no picture in two of its sets, and what was compared for it."""

    split: Split
    comparison: Comparison


def split_apart(dataset: ImageDataset, label: int, gone_labels: tuple[int, ...], rule: DuplicatesRule, folder: Path) -> Apart:
    """Split a dataset by one label, and compare what is retained, trained on or held out, with what is to be forgotten or was forgotten earlier.

    By the rule ``forget`` a retained image that is a picture of the forget set joins it. One that is only a picture of a label forgotten earlier, or
    in the same run, is in neither set.

    Args:
        dataset: the dataset.
        label: the label to forget.
        gone_labels: labels that were forgotten earlier, or are forgotten in the same run.
        rule: what becomes of such images.
        folder: where their list goes.

    Raises:
        BadInput: there are such images and the rule is ``refuse``, or a set would be empty.
    """
    split, looks = split_dataset(dataset.labels, dataset.class_names, label, gone_labels), Looks(dataset.images)
    of_forget = looks.twins(dataset.labels, split.retain, split.forget)
    of_gone = looks.twins(dataset.labels, np.setdiff1d(split.retain, of_forget.at), split.gone)
    found = of_forget.and_then(of_gone)
    _list(dataset, found, folder / TWINS)
    if len(found.at) and rule == "refuse":
        raise BadInput(_refusal(dataset, found, folder / TWINS))
    retain = np.setdiff1d(split.retain, found.at)
    if not len(retain):
        raise BadInput(f"every picture that dataset {dataset.name} would retain is a picture to forget as well: add others.")
    apart = Split(np.union1d(split.forget, of_forget.at), retain, np.union1d(split.gone, of_gone.at))
    check_split(apart, len(dataset.labels))
    near = NearComparison(bits=BITS, distance=DISTANCE, correlation=CORRELATION, found=int((~found.exact).sum())) if looks.near else None
    compared = Comparison(
        compared=len(split.retain), exact=int(found.exact.sum()), near=near, joined=len(of_forget.at), forgotten_before=len(of_gone.at)
    )
    return Apart(apart, compared)


def under_two_labels(dataset: ImageDataset) -> NDArray[np.int64]:
    """The positions of all images that lie in the dataset under another label too."""
    everything = np.arange(len(dataset.labels))
    return np.sort(Looks(dataset.images).twins(dataset.labels, everything, everything).at)


def _list(dataset: ImageDataset, found: Twins, path: Path) -> None:
    if not len(found.at):
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("position", "label", "same_as", "how"))
    called = [dataset.class_names[label] for label in dataset.labels[found.at]]
    how = ["exact" if exact else "near" for exact in found.exact]
    lines.writerows(zip(found.at, called, found.of, how, strict=True))
    write_atomic(path, text.getvalue().encode(), mode=0o600)


def _refusal(dataset: ImageDataset, found: Twins, path: Path) -> str:
    exact, near = int(found.exact.sum()), int((~found.exact).sum())
    how = [f"{exact} have its very pixels" if exact else "", f"{near} look the same" if near else ""]
    labels = shown_names([dataset.class_names[label] for label in np.unique(dataset.labels[found.at])])
    return (
        f"{exact + near} pictures of dataset {dataset.name} are a picture to forget ({' and '.join(filter(None, how))}) and lie under other labels "
        f"({labels}), so the model would keep them: remove them, label them alike, or set dataset.duplicates to 'forget'; {path} lists them by their "
        "positions, from 0."
    )
