"""The files that a model folder must hold, and their digests; no model is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erasediff.errors import BadInput, IntegrityError
from erasediff.files import read_bounded, sha256_file, sha256_folder
from erasediff.records.base import MAX_DOCUMENT_BYTES, load_json
from erasediff.records.core import ModelRecord

INDEX, PART_CONFIG, PART_WEIGHTS = "model_index.json", "config.json", "diffusion_pytorch_model.safetensors"
"""diffusers' names: of a pipeline's list of components, and of a component's config and weights."""
WEIGHTS = Path("unet", PART_WEIGHTS)
_ELSEWHERE = "or register a model from elsewhere with `erasediff import-base` (from Python, read it with erasediff.load)"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}


@dataclass(frozen=True)
class Layout:
    """Where a kind of pipeline keeps its denoiser, and what else its folder must hold."""

    denoiser: str
    others: tuple[str, ...] = ()

    @property
    def needed(self) -> frozenset[str]:
        """Every file."""
        own = (f"{self.denoiser}/{PART_CONFIG}", f"{self.denoiser}/{PART_WEIGHTS}")
        return frozenset({INDEX, "scheduler/scheduler_config.json", *own, *self.others})


_VAE = (f"vae/{PART_CONFIG}", f"vae/{PART_WEIGHTS}")
LAYOUTS = {
    "ClassConditionalPipeline": Layout("unet"),
    "DiTPipeline": Layout("transformer", _VAE),
    "StableDiffusionPipeline": Layout(
        "unet", (*_VAE, "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer_config.json")
    ),
}
"""By the ``_class_name`` of ``model_index.json``."""


def check_there(path: Path) -> None:
    """Refuse a path of a model at which there is nothing, or which cannot be reached.

    Raises:
        BadInput: it is such a path.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"the model {path} does not exist: check the path.") from None
    except OSError as error:
        raise BadInput(f"the model {str(path)[:200]} cannot be read ({error.strerror}): check the path and its permissions.") from None


def check_files(folder: Path, needed: frozenset[str], kind: str) -> None:
    """Refuse a model folder that holds a pickle, or lacks one of the files ``needed`` by its ``kind``.

    Raises:
        BadInput: there is no such folder, a file is missing, or one is a pickle.
    """
    check_there(folder)
    if not folder.is_dir():
        raise BadInput(f"the model {folder} is not a folder: hand in a {kind}.")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in _PICKLES:
            raise BadInput(f"the model folder {folder} holds {name}, a pickle: convert it to safetensors; pickles are never loaded.")
    missing = sorted(name for name in needed if not (folder / name).is_file())
    if missing:
        raise BadInput(f"the model folder {folder} lacks {missing[0]}: hand in a {kind}.")


def read_json(path: Path) -> dict[str, Any]:
    """Read a model's config.

    Raises:
        BadInput: it is missing, too large, or not a JSON object.
    """
    try:
        document = load_json(read_bounded(path, MAX_DOCUMENT_BYTES, "the model's config"))
    except (ValueError, RecursionError):
        raise BadInput(f"the model's config {path} is not JSON: hand in the folder again.") from None
    if not isinstance(document, dict):
        raise BadInput(f"the model's config {path} is not a JSON object: hand in the folder again.")
    return document


def layout_of(folder: Path) -> Layout:
    """The layout of the kind of pipeline that a folder says it is.

    Raises:
        BadInput: it has no ``model_index.json``, or is of another kind.
    """
    check_files(folder, frozenset({INDEX}), f"model folder in diffusers layout, {_ELSEWHERE}")
    kind = read_json(folder / INDEX).get("_class_name")
    if not isinstance(kind, str) or kind not in LAYOUTS:
        raise BadInput(f"{folder / INDEX} describes a {kind}, which is not known: hand in one of {', '.join(LAYOUTS)}, {_ELSEWHERE}.")
    return LAYOUTS[kind]


def network_folder(folder: Path) -> Path:
    """Where the denoiser's config and weights lie."""
    return folder / layout_of(folder).denoiser


def check_layout(folder: Path) -> None:
    """Refuse an incomplete folder; see :func:`check_files`."""
    check_files(folder, layout_of(folder).needed, f"whole model folder in diffusers layout, {_ELSEWHERE}")


def check_weights(folder: Path, expected_sha256: str) -> None:
    """Refuse a denoiser whose weights do not have the expected digest.

    Raises:
        IntegrityError: the digest differs.
    """
    if (found := sha256_file(network_folder(folder) / PART_WEIGHTS)) != expected_sha256:
        raise IntegrityError(f"the weights in {folder} have digest {found[:12]}, not {expected_sha256[:12]} as recorded: fetch the model again.")


def check_rest(folder: Path, record: ModelRecord) -> None:
    """Refuse a folder in which a file beside the weights is not the recorded one.

    Raises:
        IntegrityError: one is not.
    """
    if sha256_folder(folder) != record.folder_sha256:
        raise IntegrityError(f"a file beside the weights in {folder} is not the one that was recorded: fetch the model again.")


def check_recorded(folder: Path, record: ModelRecord) -> None:
    """Whether a folder is, to the last file, the one that a record describes, without loading it.

    Raises:
        BadInput: a file is missing, or is a pickle.
        IntegrityError: a file is not the recorded one.
    """
    check_layout(folder)
    check_weights(folder, record.weights.sha256)
    check_rest(folder, record)
