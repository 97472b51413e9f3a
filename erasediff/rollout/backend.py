"""The interface of roll-out backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from erasediff.cluster.deadline import Deadline
from erasediff.errors import BadInput
from erasediff.records.base import load_json
from erasediff.records.core import Servable
from erasediff.records.serving import ServingRules

PREFIX = "erasediff.io/"
Admit = Callable[[Servable, ServingRules], None]
"""Checks a model against rules; raises BadInput if they do not allow it."""


@dataclass(frozen=True)
class Candidate:
    """A published model with its manifest, or with what an object of the cluster says of it: no more than :class:`Servable`."""

    uri: str
    model: Servable = field(compare=False)
    servable: Servable = field(init=False)

    def __post_init__(self) -> None:
        """Leave out what else a manifest holds, such as the names of classes."""
        object.__setattr__(self, "servable", self.model.servable())

    def annotations(self) -> dict[str, str]:
        """Annotations by which a later roll-back can check the model against the rules."""
        return {f"{PREFIX}uri": self.uri, f"{PREFIX}served": self.servable.canonical().decode()}


def serving_candidate(annotations: dict[str, str] | None) -> Candidate | None:
    """The model that an object with these annotations serves; ``None`` if they are missing."""
    found = annotations or {}
    uri, served = found.get(f"{PREFIX}uri"), found.get(f"{PREFIX}served")
    return None if uri is None or served is None else Candidate(uri, _servable(served))


def _servable(text: str) -> Servable:
    """What an annotation says of a model; an earlier version of EraseDiff wrote the whole manifest."""
    source = f"the annotation {PREFIX}served"
    try:
        document = load_json(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source} is not JSON ({error}): remove the object and roll out again.") from None
    known = {name: value for name, value in document.items() if name in Servable.model_fields} if isinstance(document, dict) else document
    return Servable.parse(known, source)


class RollOutBackend(Protocol):
    """One roll-out. Methods are called in this order; ``roll_back`` may come at any time after ``look``."""

    def look(self) -> Candidate | None:
        """Remember the deployed version, and return its model if known."""

    def bring_up(self, candidate: Candidate, deadline: Deadline) -> None:
        """Start the candidate without traffic and wait until it is ready."""

    def address(self) -> str:
        """The candidate's own address inside the cluster, such as ``http://NAME.NAMESPACE.svc``."""

    def share(self, deadline: Deadline) -> None:
        """Give the candidate its share of the traffic, and watch it for the configured time."""

    def promote(self, deadline: Deadline) -> str:
        """Give the candidate all traffic, remove the canary, and return the new revision."""

    def changed(self) -> bool:
        """Whether the version that ``look`` saw may have been changed."""

    def roll_back(self, deadline: Deadline) -> None:
        """Restore the version that ``look`` saw, and wait until it serves."""

    def remove_canary(self, deadline: Deadline) -> None:
        """Remove only the candidate."""
