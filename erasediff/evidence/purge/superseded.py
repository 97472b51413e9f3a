"""Decide which models to purge after an erasure: a pure function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from erasediff.evidence.purge.store import RETRY_LATER, Kept
from erasediff.records.core import ModelRecord


@dataclass(frozen=True)
class Build:
    """A model, from the registry or an attempt's records.

    Attributes:
        model: its record.
        onnx_sha256: its exported graph, if there is one.
        number: its registered version, or ``None``.
        run_id: its MLflow run.
        passed: whether it passed a gate.
        labels: the classes of the attempt and batch that made it, by their names.
    """

    model: ModelRecord
    onnx_sha256: str | None = None
    number: int | None = None
    run_id: str = ""
    passed: bool = False
    labels: frozenset[str] = frozenset()

    @property
    def digests(self) -> set[str]:
        """The digests under which it could be served."""
        return {self.model.weights.sha256} | ({self.onnx_sha256} if self.onnx_sha256 else set())


@dataclass(frozen=True)
class RetentionRules:
    """The rules of the decision.

    Attributes:
        dataset: the request's dataset.
        label: the name of the class that was erased.
        champion: the deployed version.
        epoch: the champion's epoch.
        warm: how many erased builds to keep, including the champion.
        elsewhere: weights of other registered models' champions.
        opened: weights that open attempts started from or made.
    """

    dataset: str
    label: str
    champion: int
    epoch: int
    warm: int
    elsewhere: frozenset[str] = frozenset()
    opened: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PurgeDecision:
    """``gone`` and ``open_`` are revoked; ``open_`` is not deleted yet, since open attempts need it."""

    gone: tuple[Build, ...]
    stay: tuple[Build, ...]
    open_: tuple[Build, ...]
    kept: tuple[Kept, ...]


_CHAMPION = "they are deployed, or kept for a roll-back"
_OPEN = f"they are revoked, but an open attempt still needs them: {RETRY_LATER}"
_ELSEWHERE = "they are the champion of another registered model: erase the class there too"
_ERASED, _OTHER = "they have forgotten the class", "they belong to another dataset"


def decide(builds: Iterable[Build], rules: RetentionRules) -> PurgeDecision:
    """Decide for every build whether it is deleted."""
    newest_first = sorted(builds, key=lambda build: -(build.number or 0))
    warm = _warm(newest_first, rules)
    decided = [(build, _reason(build, rules, warm)) for build in newest_first]
    reasons = Counter(reason for _, reason in decided if reason is not None)
    return PurgeDecision(
        gone=tuple(build for build, reason in decided if reason is None),
        stay=tuple(build for build, reason in decided if reason not in (None, _OPEN)),
        open_=tuple(build for build, reason in decided if reason == _OPEN),
        kept=tuple(Kept("models", count, reason) for reason, count in sorted(reasons.items())),
    )


def _warm(newest_first: list[Build], rules: RetentionRules) -> set[str]:
    """Weights of the champion and of the newest other builds for a roll-back."""
    champion = [build for build in newest_first if build.number == rules.champion]
    others = [build for build in newest_first if build.number not in (None, rules.champion) and _may_serve(build, rules)]
    return {build.model.weights.sha256 for build in [*champion, *others[: max(0, rules.warm - len(champion))]]}


def _may_serve(build: Build, rules: RetentionRules) -> bool:
    return build.passed and build.model.epoch >= rules.epoch and rules.label in build.model.forgotten and build.model.dataset == rules.dataset


def _reason(build: Build, rules: RetentionRules, warm: set[str]) -> str | None:
    """Why a build stays, or ``None`` if it is deleted."""
    weights, model = build.model.weights.sha256, build.model
    if weights in warm:
        return _CHAMPION
    if weights in rules.elsewhere:
        return _ELSEWHERE
    if model.dataset != rules.dataset:
        return _OTHER
    surplus = build.number is not None and _may_serve(build, rules)
    failed = build.number is None and rules.label in build.labels
    if rules.label in model.forgotten and not surplus and not failed:
        return _ERASED
    return _OPEN if weights in rules.opened else None
