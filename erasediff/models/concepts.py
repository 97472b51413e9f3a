"""The erasures of a text-to-image folder: ``erasure.json``, and the embeddings it points to.

:class:`erasediff.records.concept.ConceptErasure` explains why embeddings are stored and not prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from erasediff.errors import BadInput, IntegrityError
from erasediff.files import sha256_bytes, sha256_file, sha256_folder
from erasediff.models.layout import WEIGHTS
from erasediff.records.base import Pointer
from erasediff.records.concept import ConceptErasure

RECORD, CONDITIONS = "erasure.json", "erasure.safetensors"
_TENSOR = "embeddings"
_SAME = 1e-4
"""Relative distance below which two encodings are one prompt's: rounding stays below 1e-5, another token goes far beyond."""


@dataclass(frozen=True)
class Forgotten:
    """The record of a folder and the embeddings ``float32 [K,L,D]`` of what it has forgotten."""

    record: ConceptErasure
    embeddings: Tensor


def encoder_sha256(folder: Path) -> str:
    """Digest of the text encoder and the tokenizer."""
    return sha256_bytes("".join(sha256_folder(folder / name) for name in ("text_encoder", "tokenizer")).encode())


def read_forgotten(folder: Path) -> Forgotten | None:
    """What a folder has forgotten, or ``None`` for a model that nothing was erased from.

    Raises:
        BadInput: one of the two files is missing, or the record does not follow its schema.
        IntegrityError: the embeddings are not the recorded ones, or were made with another text encoder.
    """
    found = [name for name in (RECORD, CONDITIONS) if (folder / name).exists()]
    if not found:
        return None
    if len(found) == 1:
        raise BadInput(
            f"the model folder {folder} holds {found[0]} but not its second file: fetch the folder again, or its earlier erasures are lost."
        )
    record = ConceptErasure.read(folder / RECORD)
    if record.conditions.uri != CONDITIONS or sha256_file(folder / CONDITIONS) != record.conditions.sha256:
        raise IntegrityError(f"{folder / CONDITIONS} is not the file that {RECORD} names: fetch the folder again.")
    if encoder_sha256(folder) != record.encoder_sha256:
        raise IntegrityError(f"the text encoder of {folder} is not the one that its {RECORD} was made with: fetch the folder again.")
    try:
        with safe_open(folder / CONDITIONS, framework="pt") as handle:
            embeddings: Tensor = handle.get_tensor(_TENSOR)
    except SafetensorError:
        raise IntegrityError(f"{folder / CONDITIONS} holds no tensor '{_TENSOR}': fetch the folder again.") from None
    if embeddings.dtype != torch.float32 or embeddings.ndim != 3:
        raise IntegrityError(f"{folder / CONDITIONS} holds no table of embeddings: fetch the folder again.")
    return Forgotten(record, embeddings)


def write_forgotten(folder: Path, embeddings: Tensor, erasures: tuple[str, ...]) -> ConceptErasure:
    """Write the record of an erased folder once its other files are complete."""
    save_file({_TENSOR: embeddings.float().cpu().contiguous()}, folder / CONDITIONS)
    record = ConceptErasure(
        erasures=erasures,
        conditions=Pointer(uri=CONDITIONS, sha256=sha256_file(folder / CONDITIONS)),
        encoder_sha256=encoder_sha256(folder),
        weights_sha256=sha256_file(folder / WEIGHTS),
    )
    record.write(folder / RECORD)
    return record


def same_rows(left: Tensor, right: Tensor) -> Tensor:
    """Which rows of two tables ``[A,L,D]`` and ``[B,L,D]`` encode one prompt: bool ``[A,B]``.

    Embeddings are compared and not texts, since the tokenizer ignores case and spaces, and cuts what is too long.
    """
    distances = torch.cdist(left.flatten(1), right.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    same: Tensor = distances <= _SAME * left.flatten(1).norm(dim=1, keepdim=True)
    return same
