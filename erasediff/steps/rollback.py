"""Roll back to the newest version that may be served: it passed, is not revoked, and has forgotten all that the champion has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erasediff.attempts.workdir import FETCHED_PREFIX, Workdir
from erasediff.cluster.api import Cluster
from erasediff.errors import BadInput
from erasediff.evidence.served_rules import workdir_rules
from erasediff.files import append_line, temporary_folder
from erasediff.records.core import PromotionRecord, Verdict
from erasediff.records.serving import ServingRules, load_rules
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate
from erasediff.rollout.rules import ClusterRules
from erasediff.rollout.run import Address, RollOut
from erasediff.rollout.store import store_for
from erasediff.serve.admission import check_servable
from erasediff.steps.promote import move_champion, one_at_a_time
from erasediff.steps.versions import Version, epoch_of, fetch_exported, version_of
from erasediff.tracking import CHAMPION, Tracking


@dataclass(frozen=True)
class RollbackResult:
    """The result of a roll-back."""

    name: str
    version: str
    previous: str
    revision: str


def rollback(workdir: Workdir, name: str, version: str | None = None, rules: Path | None = None, address: Address | None = None) -> RollbackResult:
    """Roll out another admissible version, and make it the champion.

    Args:
        workdir: the workdir with the list of promotions.
        name: the registered model.
        version: the version to take; the newest admissible one if unset.
        rules: serving rules in addition to those of the cluster and the workdir.
        address: the canary's address, if not its own Service.

    Raises:
        BadInput: there is no champion, or no other version is admissible.
        RolledBack: the version did not come up; the champion stays.
    """
    settings, tracking = RollOutSettings.load(), Tracking(workdir.root)
    with one_at_a_time(workdir):
        champion = tracking.alias(name, CHAMPION)
        if champion is None:
            raise BadInput(f"{name!r} has no champion in MLflow: promote a version first.")
        given = _both(ServingRules() if rules is None else load_rules(rules), workdir_rules(workdir))
        if settings.backend == "none":
            target = choose(tracking.versions(name), champion, given, version)
            with temporary_folder(workdir.root, FETCHED_PREFIX) as folder:
                fetch_exported(tracking, champion.name, target, folder, given)
            return _move(workdir, tracking, name, target, str(champion.version), "")
        with Cluster.connected(settings.namespace) as cluster, temporary_folder(workdir.root, FETCHED_PREFIX) as folder:
            in_force = _both(given, ClusterRules(cluster).read())
            target = choose(tracking.versions(name), champion, in_force, version)
            exported = fetch_exported(tracking, champion.name, target, folder, in_force)
            uri = store_for(settings.publish_to or "").publish(exported)
            revision = RollOut(cluster, settings, f"rollback-{name}", check_servable, address).run(Candidate(uri, exported.model))
        return _move(workdir, tracking, name, target, str(champion.version), revision)


def choose(versions: Iterable[Any], champion: Any, rules: ServingRules, asked: str | None) -> Version:
    """The version to roll back to: the given one, or the newest admissible one other than the champion.

    Raises:
        BadInput: the given version, or every version, is not admissible.
    """
    present = version_of(champion)
    floor = max(rules.minimum_epoch, epoch_of(champion) if present is None else present.epoch)
    others = [entry for entry in versions if str(entry.version) != str(champion.version) and asked in (None, str(entry.version))]
    reasons = {str(entry.version): refusal(version_of(entry), floor, rules) for entry in others}
    for entry in others:
        if reasons[str(entry.version)] is None:
            found = version_of(entry)
            assert found is not None
            return found
    listed = "; ".join(f"version {number} {reason}" for number, reason in list(reasons.items())[:5]) or "there is no other version"
    raise BadInput(
        f"there is no version of {champion.name!r} to roll back to ({listed}): suppress the class in the rules until a new version passes."
    )


def refusal(version: Version | None, minimum_epoch: int, rules: ServingRules) -> str | None:
    """Why a version may not be served, or ``None`` if it may."""
    if version is None:
        return "was not registered by a gate"
    if version.verdict is not Verdict.PASS:
        return f"has the verdict {version.verdict}"
    if version.epoch < minimum_epoch:
        return f"is of epoch {version.epoch}, below {minimum_epoch}"
    if {version.weights_sha256, version.onnx_sha256} & set(rules.revoked):
        return "has been revoked"
    return None


def _both(one: ServingRules, other: ServingRules) -> ServingRules:
    return ServingRules(
        minimum_epoch=max(one.minimum_epoch, other.minimum_epoch),
        revoked=tuple(sorted({*one.revoked, *other.revoked})),
        suppress=tuple(sorted({*one.suppress, *other.suppress})),
    )


def _move(workdir: Workdir, tracking: Tracking, name: str, target: Version, previous: str, revision: str) -> RollbackResult:
    """Record the promotion, then move the alias."""
    champion = tracking.alias(name, CHAMPION)
    if champion is None or str(champion.version) not in (previous, target.number):
        raise BadInput(f"the champion of {name!r} was moved by another process: check its versions in MLflow.")
    record = PromotionRecord(
        name=name,
        version=target.number,
        previous_version=previous,
        verdict_digest=target.verdict_digest,
        forget_set_version=target.forget_set_version,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    append_line(workdir.promotions, record.canonical())
    move_champion(tracking, name, target.number)
    return RollbackResult(name, target.number, previous, revision)
