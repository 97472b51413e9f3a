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
from erasediff.models.configs import check_config, check_layers, problem
from erasediff.models.denoiser import Denoiser
from erasediff.models.layout import PART_CONFIG, PART_WEIGHTS, read_json

_SHARDS = f"{PART_WEIGHTS}.index.json"
UNLOADABLE = (
    *(OSError, ValueError, TypeError, LookupError, NameError, AttributeError, RuntimeError, ArithmeticError, AssertionError, MemoryError),
    SafetensorError,
)
"""What the classes and loaders of diffusers and transformers raise on a damaged component, or a config that makes no sense."""
_POSITIONS = "position_ids"
"""Whole numbers that older versions of transformers saved among the weights."""
_VARIANT = re.compile(r"^diffusion_pytorch_model(\.[A-Za-z0-9_-]+)?\.safetensors$")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in float32.

    Raises:
        BadInput: it is another kind of file, damaged, or cannot be read.
    """
    if not path.is_file():
        raise BadInput(f"{path} is a folder, or a link to nothing, where a file of weights is expected: put the file there.")
    try:
        with safe_open(path, framework="pt") as handle:
            found = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
        return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
    except PermissionError:
        raise BadInput(f"there is no permission to read {path}: change its permissions.") from None
    except (SafetensorError, ValueError):
        raise BadInput(f"{path} is not a safetensors file: convert the weights to safetensors; pickles are never loaded.") from None
    except UNLOADABLE as error:
        raise BadInput(f"the weights in {path} cannot be read ({problem(error)}): save them in float32, float16 or bfloat16.") from None


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


def build_part(
    kind: Any,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    folder: Path,
    denoiser_of: Callable[[nn.Module], Denoiser],
    state_of: Callable[[Any], tuple[int, int, int]],
) -> nn.Module:
    """A denoising network of a config with its weights, in evaluation mode.

    It is drawn and called without memory first, so that nothing is allocated that the weights do not fill.

    Args:
        kind: a class of diffusers' models.
        config: its config.
        weights: its tensors.
        folder: where errors say they lie.
        denoiser_of: how its family calls it.
        state_of: ``(C, H, W)`` of what it denoises.

    Raises:
        BadInput: the config does not describe such a model, or the weights are not its own or not finite.
    """
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    drawn = _drawn(kind, config, folder)
    own = drawn.state_dict()
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise BadInput(
            f"the tensors of {folder} do not match its config ({odd[0]} and {len(odd) - 1} more differ): "
            f"hand in a folder whose {folder.name}/{PART_CONFIG} belongs to its weights."
        )
    if other := sorted(name for name, value in weights.items() if value.is_floating_point() != own[name].is_floating_point()):
        raise _no_floats(other[0], folder, str(weights[other[0]].dtype).removeprefix("torch."))
    if bad := sorted(name for name, value in weights.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())):
        raise BadInput(f"the tensor {bad[0]} of {folder} is not finite: hand in weights without NaN and infinity.")
    try:
        state = (1, *state_of(drawn))
        with torch.device("meta"), torch.no_grad():
            predicted = denoiser_of(drawn.to("meta"))(torch.empty(state), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        if tuple(predicted.shape) != state:
            raise ValueError(f"of a state {list(state[1:])} it makes {list(predicted.shape[1:])}")
        part: nn.Module = kind.from_config(config)
        part.load_state_dict(weights)
    except UNLOADABLE as error:
        raise no_such_model(kind, folder, error) from None
    return part.eval()


def _drawn(kind: Any, config: dict[str, Any], folder: Path) -> nn.Module:
    """The network of a config without the memory for its weights."""
    try:
        check_config(kind, config)
        check_layers(config)
        with torch.device("meta"):
            drawn: nn.Module = kind.from_config(config)
    except UNLOADABLE as error:
        raise no_such_model(kind, folder, error) from None
    return drawn.eval()


def no_such_model(kind: Any, folder: Path, error: Exception) -> BadInput:
    """The sentence for a component of which the config does not describe a model of its ``kind``."""
    return BadInput(f"the config of {folder} describes no {kind.__name__} ({problem(error)}): correct it, or hand in the folder again.")


def loaded(folder: Path, name: str, load: Callable[[Path], Any]) -> Any:
    """What ``load`` makes of a component folder.

    Raises:
        BadInput: it cannot be loaded.
    """
    try:
        return load(folder / name)
    except UNLOADABLE as error:
        raise BadInput(f"the {name} of {folder} cannot be loaded ({type(error).__name__}: {problem(error)}): hand in the folder again.") from None


def load_pretrained(folder: Path, name: str, kind: Any) -> nn.Module:
    """A frozen component in float32, by its library's own loader, which knows the names that older versions gave to tensors.

    Raises:
        BadInput: the weights have not exactly the model's names and shapes (the loader would fill a gap with random numbers), are not finite, or no
            floating-point numbers (the loader would take whole ones, and the real part of complex ones).
    """
    module, info = loaded(
        folder, name, lambda path: kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
    )
    _check_floats(folder / name)
    odd = sorted(str(key) for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[part])
    if odd:
        raise BadInput(
            f"the tensors of the {name} of {folder} do not match its config ({odd[0]} and {len(odd) - 1} more differ): hand in the folder again."
        )
    network: nn.Module = module.float().eval().requires_grad_(False)
    if bad := next((tensor for tensor, value in network.state_dict().items() if not bool(torch.isfinite(value).all())), None):
        raise BadInput(f"the tensor {bad} of the {name} of {folder} is not finite: hand in weights without NaN and infinity.")
    return network


def _check_floats(folder: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as handle:
            kinds = {name: handle.get_slice(name).get_dtype() for name in handle.keys()}  # noqa: SIM118 - not a mapping
        if other := next((name for name in kinds if "F" not in kinds[name] and not name.endswith(_POSITIONS)), None):
            raise _no_floats(other, folder, kinds[other])


def _no_floats(tensor: str, folder: Path, kind: str) -> BadInput:
    return BadInput(f"the tensor {tensor} of {folder} is of {kind} numbers: hand in weights in float32, float16 or bfloat16.")
