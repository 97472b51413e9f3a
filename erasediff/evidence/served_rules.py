"""Revoke digests and suppress classes in the workdir's and the cluster's serving rules.

A class is suppressed before the erasure; a digest is revoked before its model is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from erasediff.attempts.workdir import Workdir
from erasediff.cluster.api import Cluster
from erasediff.errors import IntegrityError
from erasediff.records.serving import ServingRules, load_rules
from erasediff.records.settings import RollOutSettings
from erasediff.retries import retried
from erasediff.rollout.rules import ClusterRules

Field = Literal["revoked", "suppress"]


def workdir_rules(workdir: Workdir) -> ServingRules:
    """The workdir's serving rules: digests that purges revoked and classes that requests suppressed.

    Raises:
        BadInput: the rules cannot be read.
    """
    return load_rules(workdir.rules) if workdir.rules.exists() else ServingRules()


def revoke(workdir: Workdir, digests: Iterable[str], settings: RollOutSettings) -> str:
    """Add digests to the workdir's rules and, if a roll-out is configured, to the cluster's; read them back and say from where.

    Raises:
        BadInput: the rules cannot be read or written, or the cluster cannot be used.
        IntegrityError: the rules do not read back.
    """
    wanted = sorted(set(digests))
    return _add_rule(workdir, "revoked", wanted, settings, lambda rules: rules.revoke(wanted))


def suppress(workdir: Workdir, name: str, settings: RollOutSettings) -> str:
    """Add the name of a class to the same rules, so that servers refuse it; see :func:`revoke`."""
    return _add_rule(workdir, "suppress", [name], settings, lambda rules: rules.suppress([name]))


def _add_rule(workdir: Workdir, field: Field, values: Sequence[str], settings: RollOutSettings, update: Callable[[ClusterRules], None]) -> str:
    present = workdir_rules(workdir)
    wanted = present.model_copy(update={field: tuple(sorted({*getattr(present, field), *values}))})
    if wanted != present:
        wanted.write(workdir.rules)
    _check(field, values, workdir_rules(workdir))
    if settings.backend == "none":
        return "read back from the workdir's rules"

    def update_cluster() -> None:
        with Cluster.connected(settings.namespace) as cluster:
            rules = ClusterRules(cluster)
            update(rules)
            _check(field, values, rules.read())

    retried(update_cluster)
    return "read back from the workdir's and the cluster's rules"


def _check(field: Field, values: Sequence[str], rules: ServingRules) -> None:
    if not set(values) <= set(getattr(rules, field)):
        raise IntegrityError("the rules lack the new entry when they are read back, so another process changed them: run the command again.")
