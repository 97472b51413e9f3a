"""The values of a model's configs, held against what diffusers' own classes declare, before anything is built of them."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

_LARGEST = 1 << 20
"""No width, number of classes or other whole number of a config is above it."""
_MOST_LAYERS = 1024
_LAYERS = ("layers_per_block", "num_layers")
"""diffusers' names for how many layers there are, of each block where there is a list of blocks."""
_BLOCKS = ("block_types", "block_out_channels")
_MOST_SHOWN = 100


def check_config(kind: Any, config: Mapping[str, Any]) -> None:
    """Refuse a config with a value that a class of diffusers does not take, or that no model has.

    Args:
        kind: a class of diffusers that declares the types of what it is configured with.
        config: the document; what ``kind`` does not know is left to it.

    Raises:
        ValueError: a value is of another type, not finite, or far too large; the message says which one.
    """
    for name, (declared, default) in _declared(kind).items():
        value = config.get(name, default)
        if type(value) is type(default) and value == default:
            continue
        if any(isinstance(number, float) and not math.isfinite(number) for number in _numbers(value)):
            raise ValueError(f"{name} is {shown(value)}, and has to be finite")
        if any(isinstance(number, int) and abs(number) > _LARGEST for number in _numbers(value)):
            raise ValueError(f"{name} is {shown(value)}, more than the {_LARGEST} that are allowed")
        try:
            declared.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            raise ValueError(f"{name} is {shown(value)}, and has to be {_wanted(error)}") from None


def check_layers(config: Mapping[str, Any]) -> None:
    """Refuse the config of a network that has so many layers that building it would not end.

    Raises:
        ValueError: it has.
    """
    lists = (value for name, value in config.items() if isinstance(value, list) and name.endswith(_BLOCKS))
    layers = [value for name in _LAYERS if isinstance(value := config.get(name), int)]
    if max(map(len, lists), default=1) * max(layers, default=1) > _MOST_LAYERS:
        raise ValueError(f"it describes more than {_MOST_LAYERS} layers")


def problem(error: Exception) -> str:
    """What an error says, on one line of bounded length; its kind, if it says nothing."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


@cache
def _declared(kind: Any) -> dict[str, tuple[TypeAdapter[Any], Any]]:
    """The type and the default of every value that a class declares."""
    hints, settings = get_type_hints(kind.__init__), ConfigDict(arbitrary_types_allowed=True)
    parameters = inspect.signature(kind.__init__).parameters
    return {
        name: (TypeAdapter(_meant(hints[name]), config=settings), parameter.default)
        for name, parameter in parameters.items()
        if name in hints and name != "return"
    }


def _meant(hint: Any) -> Any:
    """A type as diffusers means it: its ``tuple[str]`` are of any length, and a list of words is held to its words where they are used.

    A scheduler that was made of another one's config keeps the other's words. UniPC declares its ``sigma_max`` as a bool, and ``sample_size`` may
    be a list where an int is declared, or null where nothing uses it. What such a value is not good for, the network's first call finds.
    """
    if get_origin(hint) is Literal:
        return str | None
    if hint is bool:
        return bool | float
    if hint is int:
        return int | list[int] | None
    if get_origin(hint) is tuple and len(get_args(hint)) == 1:
        return tuple[get_args(hint)[0], ...]  # type: ignore[misc]
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, map(_meant, get_args(hint)))
    return hint


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield value


def _wanted(error: ValidationError) -> str:
    problems = [found for found in error.errors(include_url=False, include_input=False) if found["type"] != "needs_python_object"]
    return " or ".join(dict.fromkeys(found["msg"].removeprefix("Input should be ").lower() for found in problems))


def shown(value: Any) -> str:
    """A value from a config for a sentence: in ASCII and of bounded length."""
    text = ascii(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
