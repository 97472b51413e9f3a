"""Serving rules: what may be served now. A running server reloads them when they change."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from erasediff.records.base import Sha256, Strict
from erasediff.records.names import ClassName
from erasediff.records.yaml import load_yaml, parse_yaml


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
    return ServingRules.parse(load_yaml(path, "the rules") or {}, f"the rules {path}")


def parse_rules(text: str, source: str) -> ServingRules:
    """Read rules from text.

    Raises:
        BadInput: they are not YAML, or do not follow the schema.
    """
    return ServingRules.parse(parse_yaml(text, source) or {}, source)
