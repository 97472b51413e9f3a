"""Sample a model folder or a registered version into a PNG file."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput
from erasediff.evaluate.seeds import check_seeds, evaluation_key
from erasediff.files import atomic_path
from erasediff.models.families import load_folder
from erasediff.models.family import Model
from erasediff.models.folder import load_model
from erasediff.records.config import SamplerConfig
from erasediff.steps.train_base import fetch_model
from erasediff.tracking import Tracking


def sample_to_png(uri: str, label: int, out: Path, count: int, scale: int, steps: int | None, seed: int, workdir: Path) -> None:
    """Sample ``count`` images of a label into one PNG.

    Raises:
        BadInput: there is no such model or label, or the file cannot be written.
    """
    model = _load(uri, workdir)
    if label >= model.conditions:
        raise BadInput(f"the model {uri} has no label {label}: choose one of 0 to {model.conditions - 1}.")
    if not out.parent.is_dir():
        raise BadInput(f"the folder {out.parent} does not exist: make it or choose another --out.")
    labels = torch.full((count,), label, dtype=torch.int64)
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


def _load(uri: str, workdir: Path) -> Model:
    if not uri.startswith("models:/"):
        return load_folder(Path(uri))
    opened = Workdir.open(workdir)
    tracking = Tracking(opened.root)
    return load_model(opened.models, fetch_model(opened, tracking, tracking.resolve(uri)))
