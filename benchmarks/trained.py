"""Models that take long to train, kept beside the base: a model of the comparison is brought before the gate as well."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from benchmarks.subjects import base_digest
from erasediff.files import atomic_path, sha256_bytes
from erasediff.records.base import canonical_json

if TYPE_CHECKING:
    from benchmarks.erase import Case


def _path(case: Case) -> Path:
    decisive = [base_digest(case.subject.folder), case.method, case.label, case.seed, case.config.model_dump(mode="json")]
    return case.subject.folder / "trained" / f"{sha256_bytes(canonical_json(decisive))[:16]}.safetensors"


def keep(case: Case, unet: torch.nn.Module) -> None:
    """Keep the weights of a finished case."""
    path = _path(case)
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in unet.state_dict().items()}, temporary)


def kept(case: Case, like: torch.nn.Module) -> torch.nn.Module | None:
    """The weights of a case in a copy of ``like``, if they were kept."""
    path = _path(case)
    if not path.is_file():
        return None
    unet = copy.deepcopy(like)
    unet.load_state_dict(load_file(path))
    return unet
