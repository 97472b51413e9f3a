"""The interface of roll-out backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from erasediff.cluster.deadline import Deadline
from erasediff.records.core import ServedModel
from erasediff.records.serving import ServingRules

PREFIX = "erasediff.io/"
Admit = Callable[[ServedModel, ServingRules], None]
"""Checks a model against rules; raises BadInput if they do not allow it."""


@dataclass(frozen=True)
class Candidate:
    """A published model and its manifest."""

    uri: str
    model: ServedModel

    def annotations(self) -> dict[str, str]:
        """Annotations with the whole manifest, so that a later roll-back can check it against the rules."""
        return {f"{PREFIX}uri": self.uri, f"{PREFIX}served": self.model.canonical().decode()}


def serving_candidate(annotations: dict[str, str] | None) -> Candidate | None:
    """The model that an object with these annotations serves; ``None`` if they are missing."""
    found = annotations or {}
    uri, served = found.get(f"{PREFIX}uri"), found.get(f"{PREFIX}served")
    return None if uri is None or served is None else Candidate(uri, ServedModel.parse_json(served, f"the annotation {PREFIX}served"))


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
