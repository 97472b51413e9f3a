"""What may be served now: a document that a running server reads again whenever it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from erasediff.records.base import Sha256, Strict
from erasediff.records.yaml import load_yaml, parse_yaml

Label = Annotated[int, Field(strict=True, ge=0)]


class ServingRules(Strict):
    """Rules that stand above any model.

    ``suppress`` are labels that nobody gets, whatever the model has learnt: they work at once, before any erasure. ``revoked`` are SHA-256 digests of
    weights or graphs, ``minimum_epoch`` the erasure epoch below which a model may still know what was forgotten.
    """

    minimum_epoch: int = Field(default=0, strict=True, ge=0)
    revoked: tuple[Sha256, ...] = ()
    suppress: tuple[Label, ...] = ()


def load_rules(path: Path) -> ServingRules:
    """Read rules from YAML.

    Raises:
        BadInput: unreadable, or not following the schema.
    """
    return ServingRules.parse(load_yaml(path, "the rules") or {}, f"the rules {path}")


def parse_rules(text: str, source: str) -> ServingRules:
    """Read rules that were kept elsewhere than in a file.

    Raises:
        BadInput: they are no YAML, or do not follow the schema.
    """
    return ServingRules.parse(parse_yaml(text, source) or {}, source)
