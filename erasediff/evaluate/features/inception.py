"""Inception-v3 as the Fréchet *Inception* distance has it: torch-fidelity's network, with weights from a local file.

torch-fidelity downloads weights where it is given none, and unpickles the file it is given. So the file is read here, safely, and
torch-fidelity is handed a copy that was written here.
"""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.evaluate.features.extractor import in_batches, to_colour
from erasediff.evaluate.statistics import Features
from erasediff.files import sha256_file

_LAYER = "2048"


@dataclass(frozen=True)
class InceptionFeatures:
    """The last pooling layer of Inception-v3, with torch-fidelity's own resizing to 299 pixels."""

    network: Any
    digest: str
    batch_size: int

    def features(self, images: Tensor) -> Features:
        """Features ``float64 [N,2048]`` of ``uint8 [N,H,W,C]``."""
        return in_batches(images, self.batch_size, lambda batch: self.network(to_colour(batch))[0])


def load_inception(path: Path, batch_size: int) -> InceptionFeatures:
    """Put a local file of weights into torch-fidelity's Inception-v3.

    Args:
        path: a ``.safetensors`` file, or a ``.pth`` that holds tensors alone.
        batch_size: images that are looked at at once.

    Raises:
        BadInput: torch-fidelity is not installed, or the file is missing, damaged, or of another network.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise BadInput("features.kind 'inception' needs torch-fidelity: run `pip install 'erasediff[inception]'`, or choose another kind.") from None
    weights, digest = read_weights(path), sha256_file(path)
    with tempfile.TemporaryDirectory(prefix="erasediff-") as folder:
        copy = Path(folder) / "weights.pth"
        torch.save(weights, copy)
        try:
            network = FeatureExtractorInceptionV3("inception-v3", [_LAYER], feature_extractor_weights_path=str(copy))
        except RuntimeError:
            raise BadInput(f"the tensors of {path} are not those of torch-fidelity's Inception-v3: hand in the weights that it names.") from None
    return InceptionFeatures(network.eval(), digest, batch_size)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors from a ``.safetensors`` file or a ``.pth``, of which nothing but tensors is unpickled.

    Raises:
        BadInput: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise BadInput(f"the weights {path} do not exist: check features.path.")
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, ImportError):
        raise BadInput(f"{path} holds no weights that can be read safely: hand in a .safetensors file or a .pth of tensors alone.") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()):
        raise BadInput(f"{path} does not hold named tensors: hand in a state dict.")
    return found
