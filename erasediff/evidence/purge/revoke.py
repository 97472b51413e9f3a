"""Revocation: before a byte of a superseded model is deleted, its digests are on the lists that serving and roll-backs go by."""

from __future__ import annotations

from collections.abc import Iterable

from erasediff.cluster.api import Cluster
from erasediff.errors import IntegrityError
from erasediff.records.serving import ServingRules, load_rules
from erasediff.records.settings import RollOutSettings
from erasediff.records.workdir import Workdir
from erasediff.rollout.rules import ClusterRules


def revoked_rules(workdir: Workdir) -> ServingRules:
    """What the purges of this workdir have revoked.

    Raises:
        BadInput: the list cannot be read, so nobody knows what must not come back.
    """
    return load_rules(workdir.revoked) if workdir.revoked.exists() else ServingRules()


def revoke(workdir: Workdir, digests: Iterable[str], settings: RollOutSettings) -> str:
    """Put digests on the workdir's list and, where a roll-out is configured, on the cluster's; read them back and say where from.

    Raises:
        BadInput: a list cannot be read or written, or the cluster cannot be used.
        IntegrityError: a list does not read back.
    """
    wanted = set(digests)
    present = set(revoked_rules(workdir).revoked)
    if not wanted <= present:
        ServingRules(revoked=tuple(sorted(wanted | present))).write(workdir.revoked)
    _check(wanted, revoked_rules(workdir))
    if settings.backend == "none":
        return "read back from the workdir's list"
    with Cluster.connected(settings.namespace) as cluster:
        rules = ClusterRules(cluster)
        rules.revoke(sorted(wanted))
        _check(wanted, rules.read())
    return "read back from the workdir's list and from the cluster's rules"


def _check(wanted: set[str], rules: ServingRules) -> None:
    if not wanted <= set(rules.revoked):
        raise IntegrityError("digests that were revoked are not on the list when it is read back: somebody else writes it; run the purge again.")
