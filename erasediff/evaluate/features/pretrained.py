"""A model that ``save_pretrained`` of transformers wrote to a local folder: safetensors only, whole, and by its own settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.evaluate.features.extractor import in_batches
from erasediff.evaluate.features.preprocessing import SETTINGS, Preprocessing, read_preprocessing
from erasediff.evaluate.statistics import Features
from erasediff.files import sha256_folder
from erasediff.models.layout import check_files, read_json

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOWERS = {"CLIPModel": "CLIPVisionModel"}
"""Models of images and texts, and the class that loads their half for images from the same folder."""
_UNLOADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    RuntimeError,
    NotImplementedError,
    ZeroDivisionError,
    SafetensorError,
    StrictDataclassError,
)


@dataclass(frozen=True)
class Pretrained:
    """A model of images with its preprocessing, and the digest of every file of its folder."""

    folder: Path
    model: Any
    preprocessing: Preprocessing
    digest: str

    @property
    def backbone(self) -> Any:
        """The model without what a task put on top of it."""
        return self.model.base_model


@dataclass(frozen=True)
class PretrainedFeatures:
    """The pooled output of a pretrained model."""

    pretrained: Pretrained
    batch_size: int

    @property
    def digest(self) -> str:
        """Of every file of the folder: weights, config and preprocessing."""
        return self.pretrained.digest

    def features(self, images: Tensor) -> Features:
        """Features ``float64 [N,d]`` of ``uint8 [N,H,W,C]``."""
        return in_batches(images, self.batch_size, self._look)

    def _look(self, images: Tensor) -> Tensor:
        return pooled(self.pretrained.backbone(pixel_values=self.pretrained.preprocessing(images)))


def load_pretrained(folder: Path) -> Pretrained:
    """Load a folder in float32 on the CPU after checking it. Nothing is downloaded and nothing unpickled.

    Raises:
        BadInput: a file is missing or a pickle, the model is not one of images, or a tensor of it is not in the folder.
    """
    check_files(folder, frozenset({"config.json", SETTINGS}), "folder as save_pretrained of transformers writes it, with its image processor")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise BadInput(f"the model folder {folder} lacks {_WEIGHTS[0]}: write the model with save_pretrained, as safetensors.")
    preprocessing, digest = read_preprocessing(folder), sha256_folder(folder)
    return Pretrained(folder, _load(folder, _class_of(folder)), preprocessing, digest)


def pooled(output: Any) -> Tensor:
    """One vector an image ``[B,d]`` from what a backbone says: its pooled output, else the mean over tokens or space."""
    value = getattr(output, "pooler_output", None)
    if value is not None:
        return torch.as_tensor(value).flatten(1)
    maps = getattr(output, "feature_maps", None)
    value = maps[-1] if maps else getattr(output, "last_hidden_state", None)
    if value is None:
        raise ValueError("it has neither a pooled output nor a last hidden state")
    last = torch.as_tensor(value)
    return last.mean(1) if last.ndim == 3 else last.mean((2, 3))


def _class_of(folder: Path) -> Any:
    """The class of transformers that wrote the folder; code that a folder brings along is not run."""
    import transformers

    named = read_json(folder / "config.json").get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else ""
    try:
        found: Any = getattr(transformers, _TOWERS.get(name, name))
    except (AttributeError, ImportError):
        found = None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) and getattr(found, "main_input_name", "") == "pixel_values"):
        raise BadInput(
            f"the architecture {name!r} of {folder / 'config.json'} is not a model of images in transformers: hand in a backbone or a classifier."
        )
    return found


def _load(folder: Path, kind: Any) -> Any:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, info = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
    except _UNLOADABLE as error:
        problem = " ".join(str(error).split()[:40]) or type(error).__name__
        raise BadInput(f"the model folder {folder} cannot be loaded ({problem}): write it again with save_pretrained.") from None
    # transformers draws what it does not find at random, and says so in a log at most
    if missing := sorted(str(name) for name in info["missing_keys"]):
        raise BadInput(
            f"the weights of {folder} lack {missing[0]} and {len(missing) - 1} more tensors that its config asks for: hand in the whole model."
        )
    return model.eval().requires_grad_(False)
