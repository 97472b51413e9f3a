"""Definitions of other projects, as an older API server takes them."""

from __future__ import annotations

from typing import Any


def without_empty_defaults(node: Any) -> Any:
    """An API server of 1.20 refuses ``default: ""``; what is a key of a list has to be given there instead."""
    if isinstance(node, list):
        return [without_empty_defaults(value) for value in node]
    if not isinstance(node, dict):
        return node
    kept = {key: without_empty_defaults(value) for key, value in node.items() if not (key == "default" and value == "")}
    if keys := kept.get("x-kubernetes-list-map-keys"):
        undefaulted = {key for key in keys if "default" not in kept["items"]["properties"][key]}
        kept["items"]["required"] = sorted({*kept["items"].get("required", ()), *undefaulted})
    return kept
