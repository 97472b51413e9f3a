"""Serving rules: what may be served now. A running server reloads them when they change."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from erasediff.errors import BadInput
from erasediff.files import read_bounded
from erasediff.records.base import MAX_DOCUMENT_BYTES, Sha256, Strict
from erasediff.records.names import ClassName
from erasediff.records.yaml import is_in_braces, parse_yaml


class ServingRules(Strict):
    """Rules that apply to every model.

    ``suppress`` names classes that are never served; this works at once, before any erasure. ``revoked`` lists SHA-256 digests of weights or graphs.
    Models below ``minimum_epoch`` may still know forgotten classes and are not served.
    """

    minimum_epoch: int = Field(default=0, strict=True, ge=0)
    revoked: tuple[Sha256, ...] = ()
    suppress: tuple[ClassName, ...] = ()


def load_rules(path: Path) -> ServingRules:
    """Read rules from YAML.

    Raises:
        BadInput: unreadable, or not following the schema.
    """
    return parse_rules(*read_rules(path))


def read_rules(path: Path) -> tuple[bytes, str]:
    """A file of rules, and what to call it; see :func:`parse_rules`.

    Raises:
        BadInput: missing, unreadable or too large.
    """
    return read_bounded(path, MAX_DOCUMENT_BYTES, "the rules"), f"the rules {path}"


def parse_rules(text: str | bytes, source: str) -> ServingRules:
    """Read rules from text.

    An empty document is not taken for rules that forbid nothing, for a file that is being rewritten is empty for a moment. Such rules say
    ``suppress: []``.

    Raises:
        BadInput: they are not YAML, do not follow the schema, have no field, or end within a line.
    """
    document = parse_yaml(text, source)
    if not document:
        raise BadInput(f"{source} is empty, or was cut short: write the whole file, with `suppress: []` where nothing is forbidden.")
    whole = text if isinstance(text, str) else text.decode(errors="replace")
    if not (whole.endswith("\n") or is_in_braces(whole)):
        raise BadInput(f"{source} ends within a line, as a file does that was cut short: write the whole file, and end it with a line break.")
    return ServingRules.parse(document, source)
