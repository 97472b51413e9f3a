"""Parse the tensors of an Open Inference Protocol request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from erasediff.records.names import normal_name
from erasediff.serve.request import Refused, SamplingRequest

INTEGER, REAL, TEXT = "INT64", "FP32", "BYTES"
INPUTS = {"label": TEXT, "num_images": INTEGER, "seed": INTEGER, "num_inference_steps": INTEGER, "guidance": REAL, "solver": TEXT}
"""The inputs of a request, one number or text each; only ``label``, the name of a class, is required."""
_TYPES: dict[str, tuple[type, ...]] = {INTEGER: (int,), REAL: (int, float), TEXT: (str, bytes)}


@dataclass(frozen=True)
class Tensor:
    """One unchecked input."""

    name: str
    datatype: str
    data: Any


@dataclass(frozen=True)
class Defaults:
    """The defaults of a request: the measured solver and guidance scale."""

    solver: str
    guidance: float


def parse_inputs(tensors: Sequence[Tensor], defaults: Defaults, class_names: Sequence[str]) -> SamplingRequest:
    """Parse a request, without checking limits and rules. ``class_names`` are the model's; the empty text asks for no class.

    Raises:
        Refused: 422; the message names the input.
    """
    values: dict[str, Any] = {}
    for tensor in tensors:
        if tensor.name in values:
            raise Refused(422, f"input {tensor.name!r} appears twice: send it once.")
        values[tensor.name] = _single(tensor)
    if "label" not in values:
        raise Refused(422, "input 'label' is missing: give the name of a class.")
    return SamplingRequest(
        label=_row(values["label"], class_names),
        count=values.get("num_images", 1),
        seed=values.get("seed", 0),
        solver=_solver(values.get("solver"), values.get("num_inference_steps"), defaults),
        guidance=float(values.get("guidance", defaults.guidance)),
    )


def _single(tensor: Tensor) -> Any:
    """The one value of an input."""
    wanted = INPUTS.get(tensor.name)
    if wanted is None:
        raise Refused(422, f"input {tensor.name[:40]!r} is not known: the inputs are {', '.join(INPUTS)}.")
    data = tensor.data
    while isinstance(data, list) and len(data) == 1:
        data = data[0]
    if tensor.datatype != wanted or isinstance(data, bool) or not isinstance(data, _TYPES[wanted]):
        raise Refused(422, f"input {tensor.name!r} must be one {wanted}: send shape [1] and one value.")
    return data.decode(errors="replace") if isinstance(data, bytes) else data


def _row(label: str, class_names: Sequence[str]) -> int:
    """The row of a class by its name; that of the null label for no class."""
    name = normal_name(label)
    if not name:
        return len(class_names)
    if name not in class_names:
        raise Refused(422, f"class {name[:40]!r} is not served: ask for a name of class_names in /served, or for '' to ask for no class.")
    return class_names.index(name)


def _solver(name: str | None, steps: int | None, defaults: Defaults) -> str:
    """The solver ``NAME-STEPS``, from a name and a number of steps, either of which may be missing."""
    if steps is None:
        return name or defaults.solver
    return f"{name or defaults.solver.rpartition('-')[0]}-{steps}"
