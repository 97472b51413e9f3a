"""Checkpoints of a running erasure: one safetensors file, written atomically, checked by digest and bound to its run.

A checkpoint holds optimiser moments, which are functions of the forget images. It stays in the run's folder and is
removed once the erased model is recorded; it never becomes part of a model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from erasediff.errors import IntegrityError
from erasediff.files import atomic_path

_FORMAT = "erasediff-checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a resumed erasure needs to continue bit for bit: named tensors, and exact numbers as JSON."""

    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, float]


def _content_digest(tensors: dict[str, Tensor], header: str) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes() if value.ndim else value.reshape(1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint, key: str) -> None:
    """Write a checkpoint.

    Args:
        path: its final name.
        checkpoint: the state.
        key: digest of everything that decides the run; a checkpoint resumes only its own run.
    """
    header = json.dumps({"format": _FORMAT, "key": key, "step": checkpoint.step, "numbers": checkpoint.numbers}, sort_keys=True)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in checkpoint.tensors.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"header": header, "digest": _content_digest(tensors, header)})


def load_checkpoint(path: Path, key: str) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        IntegrityError: the file is cut short or altered, or belongs to another run.
    """
    remedy = f"remove {path} to start the erasure from its beginning."
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError:
        raise IntegrityError(f"the checkpoint {path} is cut short or not a checkpoint: {remedy}") from None
    header = metadata.get("header", "")
    if metadata.get("digest") != _content_digest(tensors, header):
        raise IntegrityError(f"the checkpoint {path} does not have the digest it was written with: {remedy}")
    fields = json.loads(header)
    if fields["format"] != _FORMAT or fields["key"] != key:
        raise IntegrityError(f"the checkpoint {path} belongs to another run: {remedy}")
    return Checkpoint(fields["step"], tensors, fields["numbers"])
