"""Models that take long to train, kept beside the base: a model of the comparison is brought before the gate as well."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from erasediff.files import atomic_path


def _path(folder: Path, key: str) -> Path:
    return folder / "trained" / f"{key}.safetensors"


def keep(folder: Path, key: str, unet: torch.nn.Module) -> None:
    """Keep the weights that ``key`` decides."""
    path = _path(folder, key)
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in unet.state_dict().items()}, temporary)


def kept(folder: Path, key: str, like: torch.nn.Module) -> torch.nn.Module | None:
    """Those weights in a copy of ``like``, if they were kept."""
    path = _path(folder, key)
    if not path.is_file():
        return None
    unet = copy.deepcopy(like)
    unet.load_state_dict(load_file(path))
    return unet
