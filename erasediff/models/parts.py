"""Read one component of a model folder: a config and safetensors weights, whole, in shards or of one variant. Nothing is unpickled."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.models.layout import PART_CONFIG, PART_WEIGHTS, read_json

_SHARDS = f"{PART_WEIGHTS}.index.json"
UNLOADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, ZeroDivisionError, SafetensorError)
"""What the loaders of diffusers and transformers raise on a damaged component."""
_VARIANT = re.compile(r"^diffusion_pytorch_model(\.[A-Za-z0-9_-]+)?\.safetensors$")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in float32.

    Raises:
        BadInput: it is another kind of file, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            found = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError):
        raise BadInput(f"{path} is not a safetensors file: convert the weights to safetensors; pickles are never loaded.") from None
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def read_part(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors of a component that this package or diffusers saved whole."""
    return read_json(folder / PART_CONFIG), read_weights(folder / PART_WEIGHTS)


def find_weights(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a component as others save it, and what was chosen where there was a choice.

    Raises:
        BadInput: there are none, only pickles, or several variants of which none has no name.
    """
    if (folder / _SHARDS).is_file():
        return _sharded(folder, read_json(folder / _SHARDS)), []
    files = sorted(path for path in folder.glob("*.safetensors") if _VARIANT.match(path.name))
    if not files:
        pickled = any(folder.glob("*.bin"))
        what = "only pickles, which are never loaded: save it with safe_serialization=True" if pickled else "no weights: hand in the whole folder"
        raise BadInput(f"{folder} holds {what}.")
    plain = [path for path in files if path.name == PART_WEIGHTS]
    if not plain and len(files) > 1:
        raise BadInput(f"{folder} holds {len(files)} variants of its weights and none without a name: keep one of them.")
    chosen = (plain or files)[0]
    return read_weights(chosen), [f"{chosen.name} was taken"] if len(files) > 1 or not plain else []


def _sharded(folder: Path, index: dict[str, Any]) -> dict[str, Tensor]:
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) and Path(name).name == name for name in placed.values()):
        raise BadInput(f"{folder / _SHARDS} names no shards: hand in the whole folder.")
    weights: dict[str, Tensor] = {}
    for name in sorted(set(placed.values())):
        if not (folder / name).is_file():
            raise BadInput(f"{folder} lacks {name}, which its index names: hand in the whole folder.")
        weights |= read_weights(folder / name)
    return weights


def build_part(kind: Any, config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> nn.Module:
    """A component of a config with its weights, in evaluation mode.

    Args:
        kind: a class of diffusers' models.
        config: its config.
        weights: its tensors.
        folder: where errors say they lie.

    Raises:
        BadInput: the config does not describe such a model, or the weights are not its own or not finite.
    """
    try:
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        part: nn.Module = kind.from_config(config)
    except (TypeError, ValueError, NotImplementedError, ZeroDivisionError, AttributeError) as error:
        raise BadInput(f"the config of {folder} does not describe a {kind.__name__} ({error}): hand in the folder again.") from None
    expected = {name: tuple(value.shape) for name, value in part.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise BadInput(
            f"the tensors of {folder} do not match its config ({odd[0]} and {len(odd) - 1} more differ): "
            f"hand in a folder whose {folder.name}/{PART_CONFIG} belongs to its weights."
        )
    if bad := sorted(name for name, value in weights.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())):
        raise BadInput(f"the tensor {bad[0]} of {folder} is not finite: hand in weights without NaN and infinity.")
    part.load_state_dict(weights)
    return part.eval()


def loaded(folder: Path, name: str, load: Callable[[Path], Any]) -> Any:
    """What ``load`` makes of a component folder.

    Raises:
        BadInput: it cannot be loaded.
    """
    try:
        return load(folder / name)
    except UNLOADABLE as error:
        problem = str(error).strip().partition("\n")[0][:200]
        raise BadInput(f"the {name} of {folder} cannot be loaded ({type(error).__name__}: {problem}): hand in the folder again.") from None


def load_pretrained(folder: Path, name: str, kind: Any) -> nn.Module:
    """A frozen component in float32, by its library's own loader, which knows the names that older versions gave to tensors.

    Raises:
        BadInput: the weights have not exactly the model's names and shapes (the loader would fill a gap with random numbers), or are not finite.
    """
    module, info = loaded(
        folder, name, lambda path: kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
    )
    odd = sorted(str(key) for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[part])
    if odd:
        raise BadInput(
            f"the tensors of the {name} of {folder} do not match its config ({odd[0]} and {len(odd) - 1} more differ): hand in the folder again."
        )
    network: nn.Module = module.float().eval().requires_grad_(False)
    if bad := next((tensor for tensor, value in network.state_dict().items() if not bool(torch.isfinite(value).all())), None):
        raise BadInput(f"the tensor {bad} of the {name} of {folder} is not finite: hand in weights without NaN and infinity.")
    return network
