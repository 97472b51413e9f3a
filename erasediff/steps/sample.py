"""Sample a model folder or a registered version into a PNG file."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput
from erasediff.evaluate.seeds import check_seeds, evaluation_key
from erasediff.files import atomic_path, check_destination
from erasediff.models.families import load_folder
from erasediff.models.family import Model
from erasediff.models.folder import load_model
from erasediff.models.pipelines import classes_named
from erasediff.records.config import SamplerConfig
from erasediff.steps.train_base import fetch_model
from erasediff.tracking import Tracking


def sample_to_png(uri: str, label: str, out: Path, count: int, scale: int, steps: int | None, seed: int, workdir: Path) -> None:
    """Sample ``count`` images of a class into one PNG.

    Args:
        uri: a registered version, whose record names its classes, or a model folder, which may name them in its ``model_index.json``.
        label: the class's name; its position in a folder that does not name its classes.
        out: the PNG file.
        count: how many images.
        scale: how many times every pixel is enlarged.
        steps: denoiser calls an image; the default's if unset.
        seed: of the images.
        workdir: where registered models are fetched to.

    Raises:
        BadInput: there is no such model or class, or the file cannot be written.
    """
    check_destination(out, "--out")
    model, row = _load(uri, label, workdir)
    labels = torch.full((count,), row, dtype=torch.int64)
    images = model.sample(labels, check_seeds(evaluation_key(seed), "sample", count), steps or SamplerConfig().steps)
    write_png(images, out, math.ceil(math.sqrt(count)), scale)


def write_png(images: Tensor, out: Path, columns: int, scale: int = 1) -> None:
    """Write images ``uint8 [N,H,W,C]`` into one PNG file, row by row, every pixel enlarged ``scale`` times."""
    from PIL import Image

    picture = tile(images, columns).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    with atomic_path(out) as temporary:
        Image.fromarray(picture.squeeze(-1).numpy()).save(temporary, format="PNG")


def tile(images: Tensor, columns: int) -> Tensor:
    """Tile ``uint8 [N,H,W,C]`` row by row into one picture ``[rows·H, columns·W, C]``."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    padded = torch.cat([images, torch.zeros(rows * columns - count, height, width, channels, dtype=torch.uint8)])
    grid = padded.view(rows, columns, height, width, channels)
    return grid.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def _load(uri: str, label: str, workdir: Path) -> tuple[Model, int]:
    """A model and the row of a class in it."""
    if not uri.startswith("models:/"):
        folder = Path(uri)
        model = load_folder(folder)
        named = classes_named(folder, model.conditions)
        return model, _position(label, model.conditions, uri) if named is None else named.row(label)
    opened = Workdir.open(workdir)
    tracking = Tracking(opened.root)
    record = fetch_model(opened, tracking, tracking.resolve(uri))
    return load_model(opened.models, record), record.row(label)


def _position(text: str, classes: int, folder: str) -> int:
    if not classes:
        raise BadInput(f"the model in {folder} is asked by prompts and has no classes: sample it with diffusers' own pipeline.")
    if text.isascii() and text.isdigit() and int(text) < classes:
        return int(text)
    raise BadInput(f"the folder {folder} does not say what its classes are called: give a position from 0 to {classes - 1}, or models:/NAME/VERSION.")
