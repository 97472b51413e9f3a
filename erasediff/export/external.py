"""The file beside a graph that holds its weights: ONNX's external data, which graphs above protobuf's 2 GB need. torch writes it from 1.5 GB on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from erasediff.errors import BadInput
from erasediff.files import sha256_file
from erasediff.records.core import DATA_SUFFIX

_DIGEST = "erasediff.data_sha256"


def data_file(graph: Path) -> Path | None:
    """The file with a graph's weights, or ``None`` if they are in the graph.

    Raises:
        BadInput: the graph cannot be read, or refers to another file, or this one is missing.
    """
    named, expected = _locations(_structure(graph)), f"{graph.name}{DATA_SUFFIX}"
    if strange := sorted(named - {expected}):
        raise BadInput(f"the graph {graph} refers to the file {strange[0][:100]!r}, and may refer to {expected} alone: export the model again.")
    path = graph.with_name(expected)
    if named and (path.is_symlink() or not path.is_file()):
        raise BadInput(f"the graph {graph} refers to {expected}, which is not beside it: export the model again.")
    return path if named else None


def name_weights(graph: Path) -> None:
    """Write the digest of a graph's data file into the graph.

    Without it, two models of one architecture would have the same graph, and its digest, by which models are published and revoked, would tell
    neither from the other.
    """
    data = data_file(graph)
    if data is None:
        return
    model = _structure(graph)
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in model.metadata_props} | {_DIGEST: sha256_file(data)})
    graph.write_bytes(model.SerializeToString(deterministic=True))


def _structure(graph: Path) -> onnx.ModelProto:
    try:
        return onnx.load(graph, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise BadInput(f"{graph} is not an ONNX graph that can be read ({type(error).__name__}): export the model again.") from None


def _locations(message: Any) -> set[str]:
    """Every place that a tensor of a model names, wherever in the model it is."""
    return {entry.value for tensor in _tensors(message) for entry in tensor.external_data if entry.key == "location"}


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                yield from _tensors(part)
