"""The cluster's serving rules: a ConfigMap that pods mount. Its minimum epoch never falls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import CONFIG_MAP, Cluster, Object
from erasediff.errors import BadInput
from erasediff.records.serving import ServingRules, parse_rules
from erasediff.records.yaml import dump_yaml, edit_yaml, parse_yaml

CONFIG_MAP_NAME, KEY = "erasediff-serving", "rules.yaml"


def raise_epoch(text: str, epoch: int, source: str) -> str | None:
    """The rules with a higher minimum epoch; ``None`` if it is high enough. Comments stay.

    Raises:
        BadInput: the rules are not valid.
    """
    rules = parse_rules(text, source)
    return None if rules.minimum_epoch >= epoch else _with(text, rules.model_copy(update={"minimum_epoch": epoch}), "minimum_epoch", source)


def add_values(text: str, field: Literal["revoked", "suppress"], values: Iterable[str], source: str) -> str | None:
    """The rules with more digests revoked or classes suppressed; ``None`` if nothing is new. Comments stay.

    Raises:
        BadInput: the rules are not valid.
    """
    rules = parse_rules(text, source)
    present = getattr(rules, field)
    more = sorted(set(values) - set(present))
    return _with(text, rules.model_copy(update={field: (*present, *more)}), field, source) if more else None


def name_positions(text: str, lists: Sequence[Sequence[str]], source: str) -> str | None:
    """The rules with names for positions that an earlier version of EraseDiff suppressed; ``None`` if there are none. Comments stay.

    Rules hold for every model. So a position stands for the class at it in every list.

    Raises:
        BadInput: a position is beyond every list, or the rules are not valid.
    """
    document = parse_yaml(text, source) or {}
    suppressed = document.get("suppress") or [] if isinstance(document, dict) else []
    positions = [value for value in suppressed if type(value) is int] if isinstance(suppressed, list) else []
    if not positions:
        return None
    if max(positions) >= max(map(len, lists), default=0):
        raise BadInput(f"{source} suppresses position {max(positions)}, and no list of classes is that long: give the configuration of its dataset.")
    named = [names[position] for position in positions for names in lists if position < len(names)]
    kept = [value for value in suppressed if type(value) is not int]
    return _with(text, ServingRules.parse(document | {"suppress": list(dict.fromkeys([*kept, *named]))}, source), "suppress", source)


def _with(text: str, wanted: ServingRules, field: str, source: str) -> str:
    document = wanted.model_dump(mode="json")
    edited = edit_yaml(text, {field: document[field]})
    try:
        if parse_rules(edited, source) == wanted:
            return edited
    except BadInput:  # the edit also changed an alias of the list
        pass
    return dump_yaml(document)


class ClusterRules:
    """The serving rules of a namespace."""

    def __init__(self, cluster: Cluster) -> None:
        """Take the cluster, without calls."""
        self._cluster = cluster
        self._source = f"{KEY} of ConfigMap {cluster.namespace}/{CONFIG_MAP_NAME}"

    def read(self) -> ServingRules:
        """The rules in force; without a ConfigMap there are none.

        Raises:
            BadInput: they are not valid.
        """
        present = self._cluster.get(CONFIG_MAP, CONFIG_MAP_NAME)
        return ServingRules() if present is None else parse_rules(_text(present), self._source)

    def ensure(self) -> None:
        """Create empty rules if there are none: pods mount them."""
        if self._cluster.get(CONFIG_MAP, CONFIG_MAP_NAME) is not None:
            return
        metadata = {"name": CONFIG_MAP_NAME, "labels": {"app.kubernetes.io/managed-by": "erasediff"}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: "minimum_epoch: 0\n"}}
        try:
            self._cluster.create(CONFIG_MAP, body)
        except ObjectConflict:
            return  # another process created it

    def revoke(self, digests: Iterable[str]) -> None:
        """Revoke weights and graphs by their digests.

        Raises:
            ObjectConflict: other processes changed the rules at every try.
        """
        named = tuple(digests)
        self._edit(lambda text: add_values(text, "revoked", named, self._source))

    def suppress(self, names: Iterable[str]) -> None:
        """Suppress classes.

        Raises:
            ObjectConflict: see :meth:`revoke`.
        """
        named = tuple(names)
        self._edit(lambda text: add_values(text, "suppress", named, self._source))

    def name_positions(self, lists: Sequence[Sequence[str]]) -> None:
        """Put names for the positions that an earlier version of EraseDiff suppressed; see :func:`name_positions`.

        Raises:
            ObjectConflict: see :meth:`revoke`.
        """
        self._edit(lambda text: name_positions(text, lists, self._source))

    def raise_minimum(self, epoch: int) -> None:
        """Raise the minimum epoch.

        Raises:
            ObjectConflict: see :meth:`revoke`.
        """
        self._edit(lambda text: raise_epoch(text, epoch, self._source))

    def _edit(self, change: Callable[[str], str | None]) -> None:
        def edit(present: Object) -> Object | None:
            text = change(_text(present))
            return None if text is None else {**present, "data": {**present.get("data", {}), KEY: text}}

        self.ensure()
        self._cluster.change(CONFIG_MAP, CONFIG_MAP_NAME, edit)


def _text(config_map: Object) -> str:
    return str((config_map.get("data") or {}).get(KEY, ""))
