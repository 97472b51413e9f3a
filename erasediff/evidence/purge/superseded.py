"""Which models an erasure has made superfluous: numbers and names in, a decision out; nothing is asked and nothing deleted here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from erasediff.evidence.purge.store import RETRY_LATER, Kept
from erasediff.records.nouns import ModelRecord


@dataclass(frozen=True)
class Build:
    """A model as the registry or an attempt's records know it.

    Attributes:
        model: what it is and has forgotten.
        onnx_sha256: its exported graph, if there is one.
        number: its version in the registry, or ``None`` where it was never registered.
        run_id: the run of MLflow that holds it.
        passed: whether a gate said PASS of it.
        labels: what the attempt was to forget that made it, with its batch, if one did.
    """

    model: ModelRecord
    onnx_sha256: str | None = None
    number: int | None = None
    run_id: str = ""
    passed: bool = False
    labels: frozenset[int] = frozenset()

    @property
    def digests(self) -> set[str]:
        """The digests it could be served by."""
        return {self.model.weights.sha256} | ({self.onnx_sha256} if self.onnx_sha256 else set())


@dataclass(frozen=True)
class RetentionRules:
    """What the decision goes by.

    Attributes:
        dataset: of the request.
        label: the label that was erased.
        champion: the version that serves.
        epoch: the champion's.
        warm: erased builds that stay, the champion among them.
        elsewhere: weights of other registered models' champions.
        opened: weights that attempts start from or made which have not ended.
    """

    dataset: str
    label: int
    champion: int
    epoch: int
    warm: int
    elsewhere: frozenset[str] = frozenset()
    opened: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PurgeDecision:
    """``gone`` and ``open_`` are revoked, but what is still needed by an open attempt is not deleted."""

    gone: tuple[Build, ...]
    stay: tuple[Build, ...]
    open_: tuple[Build, ...]
    kept: tuple[Kept, ...]


_CHAMPION = "they serve, or stay warm to roll back to"
_OPEN = f"they are revoked, and an attempt that has not ended still needs them: {RETRY_LATER}"
_ELSEWHERE = "they are the champion of another registered model: erase the class from that one too"
_ERASED, _OTHER = "they have forgotten the class", "they are of another dataset"


def decide(builds: Iterable[Build], rules: RetentionRules) -> PurgeDecision:
    """Say of every build whether it goes."""
    newest_first = sorted(builds, key=lambda build: -(build.number or 0))
    warm = _warm(newest_first, rules)
    said = [(build, _reason(build, rules, warm)) for build in newest_first]
    reasons = Counter(reason for _, reason in said if reason is not None)
    return PurgeDecision(
        gone=tuple(build for build, reason in said if reason is None),
        stay=tuple(build for build, reason in said if reason not in (None, _OPEN)),
        open_=tuple(build for build, reason in said if reason == _OPEN),
        kept=tuple(Kept("models", count, reason) for reason, count in sorted(reasons.items())),
    )


def _warm(newest_first: list[Build], rules: RetentionRules) -> set[str]:
    """Weights of the champion and of the newest others that a roll-back would take."""
    champion = [build for build in newest_first if build.number == rules.champion]
    others = [build for build in newest_first if build.number not in (None, rules.champion) and _may_serve(build, rules)]
    return {build.model.weights.sha256 for build in [*champion, *others[: max(0, rules.warm - len(champion))]]}


def _may_serve(build: Build, rules: RetentionRules) -> bool:
    return build.passed and build.model.epoch >= rules.epoch and rules.label in build.model.forgotten and build.model.dataset == rules.dataset


def _reason(build: Build, rules: RetentionRules, warm: set[str]) -> str | None:
    """Why a build stays, or ``None`` where it goes."""
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
