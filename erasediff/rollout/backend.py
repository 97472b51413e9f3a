"""What a roll-out asks of a cluster, whatever serves there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from erasediff.cluster.deadline import Deadline
from erasediff.records.nouns import ServedModel
from erasediff.records.serving import ServingRules

PREFIX = "erasediff.io/"
Admit = Callable[[ServedModel, ServingRules], None]
"""Whether rules let a model be served; raises BadInput with the reason where they do not."""


@dataclass(frozen=True)
class Candidate:
    """A model that was published, and what its manifest says of it."""

    uri: str
    model: ServedModel

    def annotations(self) -> dict[str, str]:
        """What the objects that serve it say of it: the whole manifest, so that a roll-back can judge it by rules of a later day."""
        return {f"{PREFIX}uri": self.uri, f"{PREFIX}served": self.model.canonical().decode()}


def serving_candidate(annotations: dict[str, str] | None) -> Candidate | None:
    """The model that objects with these annotations serve; ``None`` if they do not say."""
    found = annotations or {}
    uri, served = found.get(f"{PREFIX}uri"), found.get(f"{PREFIX}served")
    return None if uri is None or served is None else Candidate(uri, ServedModel.parse_json(served, f"the annotation {PREFIX}served"))


class RollOutBackend(Protocol):
    """One roll-out. The methods are called in this order, and ``roll_back`` at any time after ``look``."""

    def look(self) -> Candidate | None:
        """Remember what serves now, and say which model it is, where that is known."""

    def bring_up(self, candidate: Candidate, deadline: Deadline) -> None:
        """Start the candidate beside it without traffic and wait until it is ready."""

    def address(self) -> str:
        """The candidate's own address inside the cluster, such as ``http://NAME.NAMESPACE.svc``."""

    def share(self, deadline: Deadline) -> None:
        """Give the candidate its share of the traffic, and watch it for the time that was set."""

    def promote(self, deadline: Deadline) -> str:
        """Let the candidate take all of the traffic, wait until it has, remove what was beside it; the revision that serves now."""

    def changed(self) -> bool:
        """Whether the version that ``look`` saw has been touched."""

    def roll_back(self, deadline: Deadline) -> None:
        """Bring back what ``look`` saw and wait until it serves."""

    def remove_canary(self, deadline: Deadline) -> None:
        """Take the candidate away and leave the rest as it is."""
