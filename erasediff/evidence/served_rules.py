"""What must not be served: digests that were revoked and labels that are suppressed, on the lists that serving and roll-backs go by.

A label is suppressed before any erasure; a digest is revoked before a byte of its model is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from erasediff.attempts.workdir import Workdir
from erasediff.cluster.api import Cluster
from erasediff.errors import IntegrityError
from erasediff.records.serving import ServingRules, load_rules
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.rules import ClusterRules

Field = Literal["revoked", "suppress"]


def workdir_rules(workdir: Workdir) -> ServingRules:
    """What the purges of this workdir have revoked, and which labels its requests have suppressed.

    Raises:
        BadInput: the list cannot be read, so nobody knows what must not come back.
    """
    return load_rules(workdir.rules) if workdir.rules.exists() else ServingRules()


def revoke(workdir: Workdir, digests: Iterable[str], settings: RollOutSettings) -> str:
    """Put digests on the workdir's list and, where a roll-out is configured, on the cluster's; read them back and say where from.

    Raises:
        BadInput: a list cannot be read or written, or the cluster cannot be used.
        IntegrityError: a list does not read back.
    """
    wanted = sorted(set(digests))
    return _add_rule(workdir, "revoked", wanted, settings, lambda rules: rules.revoke(wanted))


def suppress(workdir: Workdir, label: int, settings: RollOutSettings) -> str:
    """Put a label on the same lists, so that nobody gets it from a server that goes by them; see :func:`revoke`."""
    return _add_rule(workdir, "suppress", [label], settings, lambda rules: rules.suppress([label]))


def _add_rule(
    workdir: Workdir, field: Field, values: Sequence[str] | Sequence[int], settings: RollOutSettings, tell: Callable[[ClusterRules], None]
) -> str:
    present = workdir_rules(workdir)
    wanted = present.model_copy(update={field: tuple(sorted({*getattr(present, field), *values}))})
    if wanted != present:
        wanted.write(workdir.rules)
    _check(field, values, workdir_rules(workdir))
    if settings.backend == "none":
        return "read back from the workdir's list"
    with Cluster.connected(settings.namespace) as cluster:
        rules = ClusterRules(cluster)
        tell(rules)
        _check(field, values, rules.read())
    return "read back from the workdir's list and from the cluster's rules"


def _check(field: Field, values: Sequence[str] | Sequence[int], rules: ServingRules) -> None:
    if not set(values) <= set(getattr(rules, field)):
        raise IntegrityError("what was forbidden is not on the list when it is read back: somebody else writes it; run the command again.")
